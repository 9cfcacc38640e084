"""What looks measured, durable on disk."""

from cam_callbacks.records.files import RecordError
from cam_callbacks.records.record import Alert, Judged, Maps, Record
from cam_callbacks.records.store import LOOK, MANIFEST, PROBE, RecordStore, free_folder, is_record_file, own_store

__all__ = [
    "LOOK",
    "MANIFEST",
    "PROBE",
    "Alert",
    "Judged",
    "Maps",
    "Record",
    "RecordError",
    "RecordStore",
    "free_folder",
    "is_record_file",
    "own_store",
]
