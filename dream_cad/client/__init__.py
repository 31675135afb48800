"""Clients of the HTTP API: jobs, batches, models and files of a server.

``Client`` blocks, ``AsyncClient`` has the same methods to await. Importing this loads neither torch
nor the models.
"""

from __future__ import annotations

from dream_cad.client.aio import AsyncClient
from dream_cad.client.blocking import Client
from dream_cad.client.documents import (
    FINAL_STATES,
    Batch,
    BatchItem,
    Cluster,
    Job,
    JobEvent,
    Model,
    Models,
    ResultFile,
)
from dream_cad.client.fields import BatchItemFields, Image, JobFields
from dream_cad.client.problems import RemoteProblemError

__all__ = [
    "FINAL_STATES",
    "AsyncClient",
    "Batch",
    "BatchItem",
    "BatchItemFields",
    "Client",
    "Cluster",
    "Image",
    "Job",
    "JobEvent",
    "JobFields",
    "Model",
    "Models",
    "RemoteProblemError",
    "ResultFile",
]
