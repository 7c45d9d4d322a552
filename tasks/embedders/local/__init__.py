"""What models that run on this machine share."""
