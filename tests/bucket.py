"""A real S3-compatible server on loopback: moto's, from an environment of its own, since it needs older packages."""

import http.client
import subprocess
import time

from obstore.store import S3Store

from tests.deploy.programs import free_port, need_environment


class BucketServer:
    """Started with the block and ended with it. What it holds is gone then."""

    def __init__(self) -> None:
        self.program, self.port = need_environment("moto", "moto_server"), free_port()

    def __enter__(self) -> "BucketServer":
        command = [self.program, "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                self.ask("GET", "")
                return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the bucket server did not start within a minute")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def environment(self) -> dict[str, str]:
        """What a client of it finds in its environment."""
        return environment(self.port)

    def ask(self, method: str, path: str) -> int:
        """The status of an unsigned request, as S3's REST API takes it: PUT /BUCKET makes a bucket."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/{path}")
            return connection.getresponse().status
        finally:
            connection.close()

    def store(self, bucket: str) -> S3Store:
        """A bucket, to be read and written past `models.bundle.bucket`."""
        settings = {name.lower(): value for name, value in self.environment.items()}
        return S3Store(bucket, client_options={"allow_http": True}, config=settings)  # type: ignore[arg-type]


def environment(port: int) -> dict[str, str]:
    """The variables that lead a client to a server on loopback."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }  # fmt: skip
