"""The one tree of errors.

Each message says where the mistake is, what was found, what was expected and what to do about it.
Errors of creation are pydantic's own `ValidationError`, with a path to each problem.
"""

from __future__ import annotations


class RebindError(Exception):
    """Root of everything that rebind raises on its own account.

    ::

        RebindError
        ├── ArgumentError               a traced call whose arguments do not fit its signature (a TypeError)
        ├── CaptureError                a live object whose construction cannot be told exactly
        ├── UnresolvedParametersError   parameters without names where names are needed
        ├── ImportPathError             a `module:qualname` that does not lead to what it names
        ├── BindError                   an evaluator and a model that do not fit
        │   └── MissingParametersError  recorded parameters that the model does not have
        ├── TrainingError               a training that cannot be done as asked
        ├── EvaluationError             an evaluation that did not return a score
        ├── SerializationError          anything about bytes and files
        │   ├── NotSerializableError    a value that cannot be written
        │   ├── SaveError               a file that could not be written (disk full, no permission)
        │   ├── NotARebindFileError     bytes that are something else
        │   ├── TruncatedError          bytes that end too early, or go on too long
        │   ├── CorruptedError          bytes that were changed
        │   ├── SignatureError          bytes whose signature is not accepted
        │   │   ├── UnsignedError       a key was given and the bytes carry no signature
        │   │   ├── UnknownKeyError     signed with a key that was not given
        │   │   ├── WrongKeyError       the key's name is right and the signature is not
        │   │   └── InvalidKeyError     a key that is none, or too short (a ValueError)
        │   ├── UntrustedPayloadError   pickled code, and neither a key nor `trusted=True`
        │   ├── NewerFormatError        written by a later rebind
        │   ├── EnvironmentMismatchError  a Python or a library that cannot open the payload
        │   ├── MissingModuleError      the payload needs a module or name that is not here
        │   ├── InvalidPayloadError     whole and accepted bytes whose content does not come back
        │   └── TooLargeError           more bytes than the limit allows
        └── TrialError                  a trial that gave no result
            ├── TrialFailedError        it raised; the remote traceback is the cause
            ├── TrialMemoryError        it ran out of memory
            ├── TrialCancelledError     it was cancelled
            ├── WorkerDiedError         its worker process died while running it
            ├── WorkerEnvironmentError  its worker lacks a module, or has another Python or torch
            ├── TrialTimeoutError       it took longer than its timeout and was killed
            ├── UnpicklableTrialError   the trial could not be sent to a worker, or not opened there
            └── UnpicklableResultError  its result could not be sent back
    """


class ArgumentError(RebindError, TypeError):
    """A traced call whose arguments do not fit the signature of its target."""


class CaptureError(RebindError):
    """A live object from which no exact construction can be told."""


class UnresolvedParametersError(RebindError):
    """Parameters without names, where names are needed."""


class ImportPathError(RebindError):
    """An import path `module:qualname` that does not lead to what it names, or may not be imported."""


class BindError(RebindError):
    """An evaluator and a model that do not fit."""


class MissingParametersError(BindError):
    """Recorded parameters that the model does not have."""


class TrainingError(RebindError):
    """A training that cannot be done as asked."""


class EvaluationError(RebindError):
    """An evaluation that did not return a score."""


class SerializationError(RebindError):
    """Anything about bytes and files."""


class NotSerializableError(SerializationError):
    """A value that cannot be written."""


class SaveError(SerializationError):
    """A file that could not be written; what was there before is untouched."""


class NotARebindFileError(SerializationError):
    """Bytes that are something else than an evaluator."""


class TruncatedError(SerializationError):
    """Bytes that end too early, or go on too long."""


class CorruptedError(SerializationError):
    """Bytes that were changed since they were written."""


class SignatureError(SerializationError):
    """Bytes whose signature is not accepted."""


class UnsignedError(SignatureError):
    """A key was given, and the bytes carry no signature."""


class UnknownKeyError(SignatureError):
    """The bytes are signed with a key that was not given."""


class WrongKeyError(SignatureError):
    """The key has the right name, and the signature is not its own."""


class InvalidKeyError(SignatureError, ValueError):
    """Something that is no key, or a key that is too short to protect anything."""


class UntrustedPayloadError(SerializationError):
    """Pickled code, and neither a matching key nor `trusted=True`."""


class NewerFormatError(SerializationError):
    """Bytes written in a format that only a later rebind knows."""


class EnvironmentMismatchError(SerializationError):
    """A Python or a library whose version cannot open the payload."""


class MissingModuleError(SerializationError):
    """The payload needs a module, or a name in it, that is not here."""


class InvalidPayloadError(SerializationError):
    """The bytes are whole and accepted, and what they hold does not come back or does not validate."""


class TooLargeError(SerializationError):
    """More bytes than the limit allows."""


class TrialError(RebindError):
    """A trial that gave no result."""


class TrialFailedError(TrialError):
    """The trial raised; its remote traceback is the cause."""


class TrialMemoryError(TrialError):
    """The trial ran out of memory, its host's or its device's."""


class TrialCancelledError(TrialError):
    """The trial was cancelled before it had a result."""


class WorkerEnvironmentError(TrialError):
    """The worker lacks a module that the trial needs, or has a Python or torch that cannot open it."""


class WorkerDiedError(TrialError):
    """The worker process died while it ran the trial."""


class TrialTimeoutError(TrialError):
    """The trial took longer than its timeout, and was killed."""


class UnpicklableTrialError(TrialError):
    """The trial could not be sent to a worker, or not opened there."""


class UnpicklableResultError(TrialError):
    """The result of the trial could not be sent back."""
