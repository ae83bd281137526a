"""Objects on S3: where they are, how they are reached, read in parts and written whole, and what can go wrong."""

from weightzoo.s3.connection import Connection
from weightzoo.s3.folder import Folder, Stored
from weightzoo.s3.location import Location, is_s3
from weightzoo.s3.settings import Settings, settings_for

__all__ = ["Connection", "Folder", "Location", "Settings", "Stored", "is_s3", "settings_for"]
