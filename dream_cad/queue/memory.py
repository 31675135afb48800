"""Measured GPU memory peaks by model, checkpoint, options and GPU."""

from __future__ import annotations

from sqlalchemy import select, text

from dream_cad.queue.connection import Database
from dream_cad.queue.tables import memory_peaks

_RECORD = text("""
INSERT INTO memory_peaks (model, checkpoint, options_class, gpu, peak_bytes, samples)
VALUES (:model, :checkpoint, :options_class, :gpu, :peak_bytes, 1)
ON CONFLICT (model, checkpoint, options_class, gpu) DO UPDATE SET
    samples = memory_peaks.samples + 1,
    peak_bytes = CASE WHEN excluded.peak_bytes > memory_peaks.peak_bytes
        THEN excluded.peak_bytes ELSE memory_peaks.peak_bytes END
""")


class MemoryStore:
    """Remembers the highest peak, so that the next estimate is a measurement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self, model: str, checkpoint: str, options_class: str, gpu: str, peak_bytes: int
    ) -> None:
        """Note one job's peak in bytes."""
        values = {
            "model": model,
            "checkpoint": checkpoint,
            "options_class": options_class,
            "gpu": gpu,
            "peak_bytes": peak_bytes,
        }
        with self._database.connect(write=True) as connection:
            connection.execute(_RECORD, values)

    def peak(self, model: str, checkpoint: str, options_class: str, gpu: str) -> int | None:
        """Return the highest peak seen in bytes; None if nothing was measured."""
        statement = select(memory_peaks.c.peak_bytes).where(
            memory_peaks.c.model == model,
            memory_peaks.c.checkpoint == checkpoint,
            memory_peaks.c.options_class == options_class,
            memory_peaks.c.gpu == gpu,
        )
        with self._database.connect(write=False) as connection:
            return connection.execute(statement).scalar()
