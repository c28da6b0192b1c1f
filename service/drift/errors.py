"""What the drift report's events refuse."""


class TooManySubscribers(Exception):
    def __init__(self) -> None:
        super().__init__("as many clients follow the events as this service takes; GET /v1/drift tells the same")
