"""claimd-sandbox: a local stand-in for the provisioning part of AWS IoT Core."""
