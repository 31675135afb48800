"""Triggers of version 0002: legal transitions only, each of them written to ``job_events``."""

from __future__ import annotations

from alembic import op

_LEGAL = """
    (OLD.status = 'pending' AND NEW.status IN ('running', 'failed', 'cancelled'))
    OR (OLD.status = 'running'
        AND NEW.status IN ('pending', 'completed', 'failed', 'cancelled'))
"""
# A job enters as pending, or already completed with the result of an identical one.
_ENTRY = "NEW.status = 'pending' OR (NEW.status = 'completed' AND NEW.cached_from IS NOT NULL)"

_SQLITE = (
    f"""
    CREATE TRIGGER tr_jobs_entry BEFORE INSERT ON jobs WHEN NOT ({_ENTRY})
    BEGIN SELECT RAISE(ABORT, 'illegal first state of a job'); END
    """,
    f"""
    CREATE TRIGGER tr_jobs_transition BEFORE UPDATE OF status ON jobs
    WHEN OLD.status <> NEW.status AND NOT ({_LEGAL})
    BEGIN SELECT RAISE(ABORT, 'illegal transition of a job'); END
    """,
    """
    CREATE TRIGGER tr_jobs_added AFTER INSERT ON jobs
    BEGIN
        INSERT INTO job_events (job_id, at, kind, data)
        VALUES (NEW.id, NEW.changed_at, NEW.status,
                json_object('attempt', NEW.attempts, 'problem', json(NEW.problem)));
    END
    """,
    """
    CREATE TRIGGER tr_jobs_changed AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status
    BEGIN
        INSERT INTO job_events (job_id, at, kind, data)
        VALUES (NEW.id, NEW.changed_at, NEW.status,
                json_object('attempt', NEW.attempts, 'problem', json(NEW.problem)));
    END
    """,
)

_POSTGRESQL = (
    f"""
    CREATE FUNCTION check_job() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NOT ({_ENTRY}) THEN
                RAISE EXCEPTION 'illegal first state of a job' USING ERRCODE = 'check_violation';
            END IF;
        ELSIF NOT ({_LEGAL}) THEN
            RAISE EXCEPTION 'illegal transition of a job' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE FUNCTION note_job() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO job_events (job_id, at, kind, data)
        VALUES (NEW.id, NEW.changed_at, NEW.status,
                json_build_object('attempt', NEW.attempts, 'problem', NEW.problem));
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER tr_jobs_entry BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION check_job()",
    """
    CREATE TRIGGER tr_jobs_transition BEFORE UPDATE OF status ON jobs
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION check_job()
    """,
    "CREATE TRIGGER tr_jobs_added AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION note_job()",
    """
    CREATE TRIGGER tr_jobs_changed AFTER UPDATE OF status ON jobs
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_job()
    """,
)


def create_triggers() -> None:
    """Create them in the dialect of the database at hand."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRESQL if is_postgresql else _SQLITE:
        op.execute(statement)
