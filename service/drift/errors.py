"""What the drift report and its events refuse."""


class TooManySubscribers(Exception):
    def __init__(self) -> None:
        super().__init__("as many clients follow the events as this service takes; GET /v1/drift tells the same")


class NotRecalibrating(Exception):
    def __init__(self) -> None:
        super().__init__("the service serves the bundle's own probabilities: it was started without recalibrate_online")
