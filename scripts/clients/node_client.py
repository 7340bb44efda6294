"""Uses an embedded event store with TLS and users by the official Python client: credentials, access
control lists, and a group on $all. Environment: NODE (host:port), CA (file), PASSWORD (of all users)."""

import os

from kurrentdbclient import KurrentDBClient, NewEvent, StreamState
from kurrentdbclient.exceptions import AccessDeniedError, UnauthenticatedError

NODE, CA, PASSWORD = (os.environ[name] for name in ("NODE", "CA", "PASSWORD"))


def connect(user, password=PASSWORD):
    return KurrentDBClient(f"esdb://{user}:{password}@{NODE}?Tls=true&TlsCaFile={CA}")


def event(number):
    return NewEvent(type="Happened", data=b'{"number": %d}' % number)


def check_denied(what, call):
    try:
        call()
    except AccessDeniedError:
        return
    raise SystemExit(f"{what} is not denied")


def append(client, stream, number=0):
    return client.append_to_stream(stream, current_version=StreamState.ANY, events=[event(number)])


admin, ada, bob = connect("admin"), connect("ada"), connect("bob")
append(ada, "python", 1)
assert [event.data for event in ada.get_stream("python")] == [b'{"number": 1}']

acl = {"$acl": {"$r": ["ada", "admin"], "$w": "ada", "$d": "admin", "$mr": "ada", "$mw": "admin"}}
admin.set_stream_metadata("python", metadata=acl)
append(ada, "python", 2)
assert ada.get_stream_metadata("python")[0] == acl
check_denied("read", lambda: bob.get_stream("python"))
check_denied("append", lambda: append(bob, "python"))
check_denied("read of metadata", lambda: bob.get_stream_metadata("python"))
check_denied("metadata", lambda: ada.set_stream_metadata("python", metadata={}))
check_denied("delete", lambda: ada.delete_stream("python", current_version=StreamState.ANY))
check_denied("tombstone", lambda: ada.tombstone_stream("python", current_version=StreamState.ANY))
check_denied("read of $all", lambda: list(ada.read_all(limit=1)))
check_denied("group", lambda: ada.create_subscription_to_all("python"))

admin.create_subscription_to_all("python", filter_include=["Happened"])
check_denied("consumption", lambda: next(ada.read_subscription_to_all("python")))
admin.set_stream_metadata("$all", metadata={"$acl": {"$r": ["$admins", "ada"]}})
with ada.read_subscription_to_all("python") as subscription:
    for delivered in subscription:
        subscription.ack(delivered)
        break
assert len(list(ada.read_all(limit=2))) == 2

wrong = connect("ada", "wrong-password")
try:
    append(wrong, "python")
    raise SystemExit("a wrong password is accepted")
except UnauthenticatedError:
    pass
print("python: all passed")
