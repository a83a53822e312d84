"""Where data is looked for, and what is said when a place holds nothing or something else."""

from pathlib import Path

import numpy as np
import pytest
from made_data import (
    CLOSED,
    FASHION,
    FILES,
    GARMENTS,
    MNIST,
    empty_machine,
    holds,
    known_set,
    pictures,
    quartet,
    save_npz,
    tree,
    write_csv,
    write_idx,
)

from rowwise import data, mirrors
from rowwise.catalogue import KNOWN
from rowwise.errors import DataError, DataMissing, MissingExtra


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


# Where data is looked for


def test_every_place_in_turn(home, monkeypatch):
    """Fill the places from the last to the first; each one goes before all that were filled."""
    work = home / "work"
    fillings = [
        (home / ".cache/torch/datasets/MNIST/raw", write_idx, "torchvision's copy"),
        (home / "data/MNIST/raw", write_idx, "torchvision's copy"),
        (work / "data/MNIST/raw", write_idx, "torchvision's copy data/MNIST/raw"),
        (home / ".keras/datasets/mnist.npz", save_npz, "Keras' copy"),
        (home / "cache/mnist", write_idx, "the cache"),
        (work / "data/mnist", write_idx, "data/mnist"),
        (home / "env", write_idx, f"ROWWISE_DATA={home / 'env'}"),
        (home / "given", write_idx, f"{home / 'given'}"),
    ]
    options = {}
    for path, write, source in fillings:
        write(path, MNIST)
        if path.name == "env":
            monkeypatch.setenv("ROWWISE_DATA", str(path))
        if path.name == "given":
            options = {"path": path}
        for name in (None, "mnist"):
            dataset = data.load(name, **options)
            assert dataset.source.startswith(source)
            assert dataset.name == "mnist"
            assert holds(dataset, MNIST)
            assert dataset.fallback == ""


def test_programs_copies_that_are_damaged_are_passed_over_with_a_line(home):
    write_idx(home / "cache/mnist", quartet(seed=1))
    save_npz(home / ".keras/datasets/mnist.npz", MNIST)
    lines = []
    dataset = data.load("mnist", report=lines.append)
    assert dataset.source.startswith("Keras' copy")
    assert len(lines) == 1
    assert lines[0].startswith(f"passed over the cache: {home}/cache/mnist/train-images-idx3-ubyte")


def test_people_s_places_are_binding(home, monkeypatch):
    save_npz(home / ".keras/datasets/mnist.npz", MNIST)
    for damage in ("data/mnist", "env"):
        folder = write_idx(Path(damage), MNIST)
        (folder / f"{FILES[3]}.gz").write_bytes(b"")
        if damage == "env":
            monkeypatch.setenv("ROWWISE_DATA", "env")
        for name in (None, "mnist"):
            with pytest.raises(DataError, match=f"{damage}/{FILES[3]}.gz: .* found an empty file"):
                data.load(name)
        with pytest.raises(DataError, match="found an empty file"):
            data.load(path=folder)


def test_data_mnist_is_kept_for_mnist():
    write_idx(Path("data/mnist"), quartet(seed=3))
    for name in (None, "mnist"):
        with pytest.raises(DataError) as caught:
            data.load(name)
        assert str(caught.value).startswith(
            f"data/mnist/{FILES[0]}.gz: expected MNIST's {FILES[0]}"
        )
        assert "data/mnist is kept for MNIST: name data of your own with --data" in str(
            caught.value
        )


def test_other_things_in_data_mnist_are_no_data():
    Path("data/mnist").mkdir(parents=True)
    Path("data/mnist/README.md").write_text("to be filled")
    assert data.load(download=False).name == "digits"


@pytest.mark.parametrize("value", ["absent", "empty"])
def test_an_environment_that_names_nothing_is_an_error(home, monkeypatch, value):
    write_idx(Path("data/mnist"), MNIST)
    Path("empty").mkdir()
    monkeypatch.setenv("ROWWISE_DATA", value)
    for name in (None, "mnist", "fashion-mnist"):
        with pytest.raises(
            DataError, match=f"{value}: expected .* found (nothing|an empty folder)"
        ):
            data.load(name)
    assert data.load("digits").name == "digits"
    monkeypatch.setenv("ROWWISE_DATA", "")
    assert data.load().name == "mnist"


def test_an_environment_with_another_known_set_is_passed_over_with_a_line(home, monkeypatch):
    write_idx(home / "env", MNIST)
    monkeypatch.setenv("ROWWISE_DATA", "~/env")
    save_npz(home / ".keras/datasets/fashion-mnist/x.npz", FASHION)
    lines = []
    dataset = data.load("fashion-mnist", report=lines.append)
    assert dataset.name == "fashion-mnist"
    assert dataset.classes == GARMENTS
    assert holds(dataset, FASHION)
    assert lines == [
        "ROWWISE_DATA=~/env holds mnist, not fashion-mnist, which is looked for elsewhere"
    ]


def test_an_environment_with_data_of_one_s_own(home, monkeypatch):
    own = quartet(seed=5, shape=(14, 14), classes=3)
    write_idx(home / "letters", own)
    write_idx(Path("data/mnist"), MNIST)
    monkeypatch.setenv("ROWWISE_DATA", str(home / "letters"))
    dataset = data.load()
    assert dataset.name == "letters"
    assert dataset.classes == ("0", "1", "2")
    assert dataset.shape == (14, 14)
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    assert str(caught.value) == (
        f"{home}/letters/{FILES[0]}.gz: expected MNIST's {FILES[0]} of 40 × 28 × 28, found "
        "40 × 14 × 14; give a copy of MNIST, or leave the name mnist out to use data of your own"
    )


def test_one_folder_for_several_known_sets(home, monkeypatch):
    write_idx(home / "all/mnist", MNIST)
    write_idx(home / "all/FashionMNIST/raw", FASHION)
    monkeypatch.setenv("ROWWISE_DATA", str(home / "all"))
    assert data.load().name == "mnist"
    assert data.load("mnist").name == "mnist"
    assert data.load("fashion-mnist").name == "fashion-mnist"
    assert data.load("fashion-mnist", path=home / "all").name == "fashion-mnist"


# What is said when nothing can be had


@pytest.mark.parametrize("download", [True, False])
def test_without_mnist_the_digits_of_scikit_learn(home, download):
    lines = []
    dataset = data.load(download=download, report=lines.append)
    assert dataset.name == "digits"
    assert dataset.shape == (8, 8)
    assert dataset.fallback.startswith("MNIST could not be had: ")
    assert dataset.fallback.endswith("these are the 1,797 digits of scikit-learn, 8×8 pixels")
    if download:
        assert "Connection refused" in dataset.fallback
        assert lines[0] == f"MNIST: downloading {CLOSED[0]}{FILES[0]}.gz"
    else:
        assert "downloading is turned off" in dataset.fallback
        assert lines == []
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_data_set_asked_for_by_name_is_missing(home, name):
    with pytest.raises(DataMissing) as caught:
        data.load(name, download=False)
    message = str(caught.value)
    assert f"{KNOWN[name].title} could not be had: not on this machine" in message
    for remedy in (f"data/{name}", "--data", "ROWWISE_DATA", "mirror"):
        assert remedy in message
    assert "\n" not in message


def test_without_scikit_learn_either(monkeypatch):
    def refuse(reason=""):
        raise MissingExtra("scikit-learn", "study")

    monkeypatch.setattr(data, "digits", refuse)
    with pytest.raises(
        DataMissing, match=r"MNIST could not be had.*pip install 'rowwise\[study\]'"
    ):
        data.load(download=False)


def test_unknown_names():
    with pytest.raises(DataError, match=r"found 'minst'; did you mean mnist\?$"):
        data.load("minst")
    with pytest.raises(
        DataError, match=r"named mnist, fashion-mnist, kmnist, digits, found 'x'; d"
    ):
        data.load("x")
    with pytest.raises(DataError, match="digits come with scikit-learn, not from here"):
        data.load("digits", path=Path("here"))


def test_a_downloaded_set_is_kept(home, monkeypatch):
    def fetch(known, folder, *, report, progress):
        write_idx(folder, MNIST)
        return ("mirror.example",)

    write_idx(home / "cache/mnist", quartet(seed=1))
    monkeypatch.setattr(mirrors, "fetch", fetch)
    assert data.load("mnist").source == "downloaded from mirror.example"
    monkeypatch.setattr(mirrors, "fetch", None)
    assert data.load("mnist").source == f"the cache {home}/cache/mnist"


# What is refused


def idx_set(change):
    def make(folder):
        arrays = [array.copy() for array in quartet(seed=31)]
        return write_idx(folder, change(arrays) or arrays)

    return make


def label_too_large(arrays):
    arrays[1][7] = 47


def one_class(arrays):
    arrays[1][:] = 0
    arrays[3][:] = 0


def many_classes(arrays):
    return quartet(train=101, test=101, classes=101, shape=(2, 2))


def unseen_class(arrays):
    arrays[1][arrays[1] == 4] = 3


def with_classes(text, change=lambda arrays: None):
    def make(folder):
        idx_set(change)(folder)
        (folder / "classes.txt").write_text(text)
        return folder

    return make


def lone_item(folder):
    return write_csv(folder / "a.csv", pictures(2, (2, 2)), np.array([0, 1]))


REFUSED = {
    "label 47": (
        idx_set(label_too_large),
        f"{FILES[1]}.gz: expected training pictures of every class 0..47, the largest label, "
        "found none of class 10; a label is wrong, or the classes need names in a classes.txt",
    ),
    "one class": (idx_set(one_class), "expected 2 to 100 classes, found 1"),
    "101 classes": (idx_set(many_classes), "expected 2 to 100 classes, found 101"),
    "class only in test": (idx_set(unseen_class), "found none of class 4"),
    "more labels than names": (
        with_classes("a\nb\nc\n"),
        f"{FILES[1]}.gz: expected labels 0..2 (a, b, c), found 5 at item 0 and 27 more",
    ),
    "one name": (with_classes("a\n"), "expected 2 to 100 classes, found 1"),
    "unprintable": (with_classes("a\nb\x07\n"), "class names of printable text, found 'b\\x07'"),
    "too few to split": (lone_item, "expected enough items to hold out 20% of them, found 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(home, monkeypatch, case):
    make, words = REFUSED[case]
    place = make(home / "own")
    before = tree(home)
    for load in (lambda: data.load(path=place), lambda: data.load("mnist", path=place), data.load):
        monkeypatch.setenv("ROWWISE_DATA", str(place))
        with pytest.raises(DataError) as caught:
            load()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert tree(home) == before


MNIST_REFUSED = {
    "another data set": (
        quartet(seed=77),
        f"{FILES[0]}.gz: expected MNIST's {FILES[0]} with sha256 {{expected}} (decompressed), "
        "found {found}; give a copy of MNIST, or leave the name mnist out to use data of your own",
    ),
    "not 28×28": (quartet(shape=(32, 32)), "of 40 × 28 × 28, found 40 × 32 × 32; give a copy"),
    "fewer": (
        quartet(train=30),
        f"expected MNIST's {FILES[0]} of 40 × 28 × 28, found 30 × 28 × 28",
    ),
    "Fashion-MNIST": (
        FASHION,
        "own: expected mnist, found fashion-mnist; give a copy of MNIST, or",
    ),
}


@pytest.mark.parametrize("case", MNIST_REFUSED)
def test_not_the_mnist_that_was_asked_for(home, monkeypatch, case):
    arrays, words = MNIST_REFUSED[case]
    place = write_idx(home / "own", arrays)
    known = KNOWN["mnist"].files[0].digest
    found = known_set(arrays).files[0].digest
    with pytest.raises(DataError) as caught:
        data.load("mnist", path=place)
    assert words.format(expected=known, found=found) in str(caught.value)
    assert data.load(path=place).name in ("own", "fashion-mnist")


def test_half_of_mnist_is_not_mnist(home):
    write_idx(home / "own", MNIST)
    with pytest.raises(DataError, match="expected MNIST's training and test part, found one part"):
        data.load("mnist", path=home / "own" / f"{FILES[0]}.gz")
