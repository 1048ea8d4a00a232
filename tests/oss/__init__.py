"""A server of the OSS protocol: verifies signatures, keeps objects on disk, fails when told to."""
