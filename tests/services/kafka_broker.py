"""A real Apache Kafka broker for tests: KRaft mode, one node, loopback only.

The jars come from ``$KAFKA_HOME/libs``, or once by Maven into ``$NETPREDICT_CACHE`` (default: the user's cache folder).
By hand: ``make broker``.
"""

import argparse
import base64
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.services.process import ServerProcess, ServiceFailed, ServiceMissing, accepts, free_ports

POM = Path(__file__).with_name("kafka-pom.xml")
HEAP = "-Xmx512m"
ATTEMPTS = 5
START_S = 90.0
STOP_S = 30.0

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind_proxy},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
auto.create.topics.enable=false
"""


def cache_folder() -> Path:
    """Return the folder for what is fetched once: ``$NETPREDICT_CACHE``, else ``netpredict`` in the user's cache."""
    if own := os.environ.get("NETPREDICT_CACHE"):
        return Path(own).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "netpredict"


def broker_jars() -> Path:
    """Return the folder with the broker's jars, fetched by Maven when this machine has none yet."""
    if not shutil.which("java"):
        raise ServiceMissing("a Kafka broker needs java (17 or newer) on the PATH")
    if home := os.environ.get("KAFKA_HOME"):
        return Path(home).resolve() / "libs"
    # a changed pom.xml gets a folder of its own
    jars = cache_folder() / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if not maven:
        raise ServiceMissing("a Kafka broker needs KAFKA_HOME, or Maven to fetch the jars")
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch_jars(maven, jars)
    return jars


def _fetch_jars(maven: str, jars: Path) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        shutil.copy(POM, Path(folder) / "pom.xml")
        wanted = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
        done = subprocess.run([maven, "-q", "-B", *wanted], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceMissing(f"Maven could not fetch the broker's jars:\n{(done.stdout + done.stderr)[-2000:]}")
        (Path(folder) / "libs").rename(jars)


class KafkaBroker:
    """One broker with its own folder. ``stop`` and ``start`` again keep the data and the address.

    Clients follow advertised addresses: a second listener at ``behind_proxy`` advertises ``proxy_port``, where a test
    may put a proxy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_file = folder / "broker.log"
        self.port = self.behind_proxy = self.proxy_port = 0
        self._classpath = f"{broker_jars()}/*"
        self._process: ServerProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> ServerProcess:
        """The running Java process, for tests that freeze or kill it by its id."""
        if self._process is None:
            raise ServiceFailed("the broker has not been started")
        return self._process

    def start(self) -> None:
        """Format the log folder at the first start, start the broker and wait until it answers."""
        if self.port:
            self._launch()
            return
        for attempt in range(ATTEMPTS):
            self.port, self.behind_proxy, self.proxy_port, controller_port = free_ports(4)
            self._format(controller_port)
            try:
                self._launch()
                return
            except ServiceFailed as failure:
                self.stop()
                # another process was quicker on one of the two ports
                if "already in use" not in str(failure) or attempt == ATTEMPTS - 1:
                    raise
                shutil.rmtree(self.folder / "data")
                self.log_file.unlink()

    def _format(self, controller_port: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "server.properties").write_text(self._properties(controller_port))
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        words = [f"--cluster-id={cluster_id}", "-c", "server.properties", *self._format_words()]
        argv = self._java("kafka.tools.StorageTool", "format", *words)
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceFailed(f"the broker's log folder could not be formatted:\n{done.stdout}{done.stderr}")

    def _properties(self, controller_port: int) -> str:
        return PROPERTIES.format(
            port=self.port,
            behind_proxy=self.behind_proxy,
            proxy_port=self.proxy_port,
            controller_port=controller_port,
            data=self.folder / "data",
        )

    def _format_words(self) -> list[str]:
        return []

    def _launch(self) -> None:
        argv = self._java("kafka.Kafka", "server.properties")
        self._process = ServerProcess(argv, self.log_file, signal.SIGTERM, cwd=self.folder)
        self._process.wait_until(self._answers, START_S)

    def _java(self, *words: str) -> list[str]:
        # two cores: the serial collector needs the fewest threads
        return ["java", HEAP, "-XX:+UseSerialGC", "-Dlog4j2.level=INFO", "-cp", self._classpath, *words]

    def _answers(self) -> bool:
        if not accepts(self.port):
            return False
        try:
            admin = self.admin()
        except KafkaError:
            return False
        try:
            return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False
        finally:
            admin.close()

    def stop(self) -> None:
        """Shut the broker down, as an operator would."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM, STOP_S)

    def kill(self) -> None:
        """End the broker as a power cut would (SIGKILL)."""
        self.process.stop(signal.SIGKILL, STOP_S)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def admin(self) -> Any:
        """Return a new admin client; the caller closes it."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until each partition has a leader, and return its name."""
        admin = self.admin()
        try:
            wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        finally:
            admin.close()
        return name

    def new_topic(self, stem: str = "topic", partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic that no other test uses, and return its name."""
        return self.create_topic(f"{stem}-{uuid.uuid4().hex[:8]}", partitions, configs)


def main() -> None:
    """Run one broker until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run one Kafka broker for use by hand; its data goes when it stops.")
    parser.add_argument("topics", nargs="*", metavar="TOPIC[:PARTITIONS]", help="topics to create")
    topics = parser.parse_args().topics
    with tempfile.TemporaryDirectory(prefix="netpredict-kafka-") as folder, KafkaBroker(Path(folder)) as broker:
        for topic in topics:
            name, _, partitions = topic.partition(":")
            broker.create_topic(name, int(partitions or 1))
        print(f"bootstrap address {broker.bootstrap}\nlog {broker.log_file}\nCtrl-C stops it", flush=True)
        stopping = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
        signal.sigwait(stopping)


if __name__ == "__main__":
    main()
