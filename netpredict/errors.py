"""One error tree. The caller asks ``retriable``, never a message text; ``exit_code`` is what the CLI leaves with."""


class NetpredictError(Exception):
    """Base of every error that netpredict raises on purpose. Its text says what to do next."""

    retriable = False
    exit_code = 1


class ConfigError(NetpredictError):
    """The configuration is wrong; the text names the key and the allowed values."""

    exit_code = 78


class PluginError(ConfigError):
    """A configured plugin is missing, ambiguous, of an unknown ``api_version`` or breaks its contract."""


class DataError(NetpredictError):
    """A data set, trace or file cannot be read; the text names the file and the place."""


class ArtefactError(NetpredictError):
    """A model artefact is missing, damaged or of another version; the previous model serves on."""


class StoreError(NetpredictError):
    """The store answered in a way that a retry cannot mend (damaged row)."""


class SchemaError(StoreError):
    """The store has the schema of another release: a restart of this one cannot mend that."""

    exit_code = 78


class StoreDamaged(StoreError):
    """The database file is not what was written to it; no start mends that, an operator does."""

    exit_code = 74


class StoreUnavailable(NetpredictError):
    """The store cannot be reached or is busy; the same work may be tried again."""

    retriable = True
    exit_code = 75


class AlreadyRunning(NetpredictError):
    """Another process holds the lock file of this store or data directory."""

    exit_code = 69


class SourceUnavailable(NetpredictError):
    """Kafka cannot be reached or does not progress; the client is rebuilt and tried again."""

    retriable = True
    exit_code = 75


class SourceRefused(SourceUnavailable):
    """Kafka answers, but trusts us not or is not to be trusted: password, certificate or access rule.

    It is tried again like any other trouble: it is mended on the broker or in a file, without us.
    """

    exit_code = 77


class ActuatorError(NetpredictError):
    """An actuator could not apply a firing. ``retriable`` is set on the instance.

    ``retry_after_s``: the receiver asked to be left alone for so long.
    """

    def __init__(self, message: str, *, retriable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retriable = retriable
        self.retry_after_s = retry_after_s
