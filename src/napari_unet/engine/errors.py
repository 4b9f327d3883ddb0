"""The errors a user can meet. Each message is one sentence that names the value and the remedy.

::

    NapariUnetError
    ├── InvalidImage        the pixels, axes or channels cannot be used
    ├── InvalidAnnotation   the painted labels cannot be trained on
    ├── InvalidSettings     a setting is out of its range
    ├── ModelError
    │   ├── ModelNotFound   no model of that name or path
    │   ├── InvalidModel    the file is damaged, foreign, or does not fit its card
    │   └── LibraryError    the models folder cannot be read or written
    ├── FileError           a file cannot be read or written
    ├── DeviceError         the device asked for is not there, or failed
    ├── OutOfMemory         the job does not fit, even with the smallest tiles
    └── ClusterError        a scheduler or its workers are not there, or not as they must be
"""


class NapariUnetError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidImage(NapariUnetError):
    """The pixels, axes or channels of an image cannot be used."""


class InvalidAnnotation(NapariUnetError):
    """The painted labels cannot be trained on."""


class InvalidSettings(NapariUnetError):
    """A setting is out of its range."""


class ModelError(NapariUnetError):
    """Base of the errors about models."""


class ModelNotFound(ModelError):
    """No model of that name or path."""


class InvalidModel(ModelError):
    """A model file is damaged, foreign, or does not fit its card."""


class LibraryError(ModelError):
    """The models folder cannot be read or written."""


class FileError(NapariUnetError):
    """A file cannot be read or written."""


class DeviceError(NapariUnetError):
    """The device asked for is not there, or failed."""


class OutOfMemory(NapariUnetError):
    """The job does not fit into memory, even with the smallest tiles."""


class ClusterError(NapariUnetError):
    """A scheduler or its workers are not there, or not as they must be."""
