"""Real servers on loopback, each in a folder and on ports of its own: an object store, a database, a tracking server."""

from tests.servers.mlflow import MLflow
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server, free_port, listening, require
from tests.servers.proxy import Proxy
from tests.servers.seaweedfs import SeaweedFS

__all__ = ["MLflow", "PostgreSQL", "Proxy", "SeaweedFS", "Server", "free_port", "listening", "require"]
