"""What inference refuses or cannot do.

InferenceError
├── NotReady            no model is loaded, or the service stops
├── QueueFull           carries when to come back
├── DeadlinePassed
├── ClientDisconnected  nobody waits for the answer any more
├── PredictionFailed    the model gave no answer for this request
├── ReloadRunning
└── BundleRefused       the bundle before it goes on
"""


class InferenceError(Exception):
    """Base of the above; the message may be shown to a client."""


class NotReady(InferenceError): ...


class QueueFull(InferenceError):
    def __init__(self, retry_after_seconds: int):
        super().__init__("more requests are waiting than can be answered in time")
        self.retry_after_seconds = retry_after_seconds


class DeadlinePassed(InferenceError): ...


class ClientDisconnected(InferenceError):
    def __init__(self) -> None:
        super().__init__("the client disconnected before it was answered")


class PredictionFailed(InferenceError): ...


class ReloadRunning(InferenceError):
    def __init__(self) -> None:
        super().__init__("a bundle is being loaded already")


class BundleRefused(InferenceError): ...
