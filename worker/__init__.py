"""The Celery face: processes that carry out steps when the bell rings."""
