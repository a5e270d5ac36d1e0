import errno

import pytest

from validators.media.layers import Layer, Trial, found

HELD = Trial(
    memory=errno.ENOMEM,
    thread=0,
    read_file=errno.EACCES,
    list_folder=errno.EACCES,
    write_file=errno.EPERM,
    tcp=errno.EPERM,
    udp=errno.EPERM,
    unix=errno.EPERM,
    fork=errno.EPERM,
    network="net:[2]",
)


def test_what_was_refused_as_it_must_holds() -> None:
    layers = found(HELD, {}, our_network="net:[1]")
    assert layers.active == frozenset(Layer)
    assert layers.missing == {}
    assert layers.lacking() is None


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        ({"memory": 0}, Layer.LIMITS),
        ({"network": "net:[1]"}, Layer.NAMESPACES),
        ({"network": ""}, Layer.NAMESPACES),  # it could not tell
        ({"thread": errno.EAGAIN}, Layer.NAMESPACES),
        ({"read_file": 0}, Layer.LANDLOCK),
        ({"list_folder": 0}, Layer.LANDLOCK),
        ({"write_file": 0}, Layer.LANDLOCK),
        ({"tcp": 0}, Layer.SECCOMP),
        ({"udp": errno.EACCES}, Layer.SECCOMP),
        ({"unix": 0}, Layer.SECCOMP),
        ({"fork": 0}, Layer.SECCOMP),
    ],
)
def test_a_layer_that_let_one_thing_pass_does_not_hold(
    change: dict[str, int | str], layer: Layer
) -> None:
    layers = found(HELD.model_copy(update=change), {}, our_network="net:[1]")
    assert layers.missing == {layer: "was set, and does not hold"}


def test_the_kernels_reason_is_kept() -> None:
    trial = HELD.model_copy(update={"read_file": 0, "list_folder": 0})
    layers = found(trial, {"landlock": "Function not implemented"}, our_network="net:[1]")
    assert layers.missing == {Layer.LANDLOCK: "Function not implemented"}
    assert layers.lacking() == "the sandbox lacks landlock (Function not implemented)"


def test_a_container_without_namespaces_has_what_is_required() -> None:
    trial = HELD.model_copy(update={"network": "net:[1]"})
    refused = {"namespaces": "Operation not permitted"}
    layers = found(trial, refused, our_network="net:[1]")
    assert layers.missing == {Layer.NAMESPACES: "Operation not permitted"}
    assert layers.lacking() is None
