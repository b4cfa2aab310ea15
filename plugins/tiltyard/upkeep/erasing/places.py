"""The one list of places where something of a person may lie. Erasing, the rescan, and what a person may know go by
it, and nothing else does."""

from typing import Final

from tiltyard.upkeep.erasing.database_places import DatabasePlace
from tiltyard.upkeep.erasing.deliveries_place import DeliveriesPlace
from tiltyard.upkeep.erasing.home_places import FilesPlace, FramesPlace, SpoolPlace, StreamsPlace
from tiltyard.upkeep.erasing.hunt import Place
from tiltyard.upkeep.erasing.lake_place import LakePlace
from tiltyard.upkeep.erasing.names_place import NamesPlace
from tiltyard.upkeep.erasing.online_place import OnlinePlace

PLACES: Final[tuple[Place, ...]] = (
    SpoolPlace(),  # it is delivered, so that it comes before the lake
    DeliveriesPlace(),
    LakePlace(),
    OnlinePlace(),
    StreamsPlace(),
    FramesPlace(),
    DatabasePlace("ledger", "texts of the ledger: reasons, events, messages, summaries of nights"),
    DatabasePlace("airflow", "texts of Airflow: what tasks hand each other, forms, answers, its log of events"),
    DatabasePlace("mlflow", "texts of MLflow: parameters, tags, descriptions"),
    FilesPlace(),
    NamesPlace(),
    DatabasePlace("lake", "texts of the lake's catalogue: least and greatest values, rows that lie there"),
)
"""All of them, in the order in which they are emptied."""
