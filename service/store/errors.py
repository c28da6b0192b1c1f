"""Why outcomes are refused.

OutcomesRefused
├── OutcomesNotKept   there is no store
└── StoreUnavailable  its database fails now
"""


class OutcomesRefused(Exception):
    """Base of the above; the message may be shown to a client."""


class OutcomesNotKept(OutcomesRefused):
    def __init__(self) -> None:
        super().__init__("this service keeps no predictions and takes no outcomes: it was started without a store")


class StoreUnavailable(OutcomesRefused):
    def __init__(self) -> None:
        super().__init__("the store is not usable now, so no outcome was taken; /health/ready says why")
