"""claimd: AWS IoT fleet provisioning by trusted user, as a daemon."""

__version__ = "0.1.0"
