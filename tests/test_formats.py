"""Files and folders of every kind -> the same pictures and labels, or a line that says why."""

import gzip

import numpy as np
import pytest
from made_data import FILES, pictures, quartet, tree, write_csv, write_idx, write_pictures
from PIL import Image

from rowwise import formats, idx
from rowwise.errors import DataError

DIGITS = tuple("0123456789")


def same(content, arrays):
    found = [a for part in content.parts for a in (part.images, part.labels)]
    return all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        FILES,
        tuple(name.replace("-idx", ".idx") for name in FILES),
        tuple(name.replace("t10k", "test") for name in FILES),
        tuple(f"emnist-digits-{name}" for name in FILES),
    ],
)
def test_idx_folder(tmp_path, names, packed):
    arrays = quartet()
    content = formats.read(write_idx(tmp_path, arrays, packed=packed, names=names))
    assert same(content, arrays)
    assert content.classes is None
    assert content.train.labels.dtype == np.int64
    assert not content.train.images.flags.writeable
    assert not content.test.labels.flags.writeable


def test_plain_files_go_before_packed_ones(tmp_path):
    arrays = quartet()
    write_idx(tmp_path, arrays, packed=False)
    write_idx(tmp_path, quartet(seed=9))
    assert same(formats.read(tmp_path), arrays)


def test_one_idx_file_finds_its_partner(tmp_path):
    arrays = quartet()
    write_idx(tmp_path, arrays)
    (tmp_path / FILES[3]).write_bytes(idx.encode(arrays[3]))
    (tmp_path / f"{FILES[3]}.gz").unlink()
    for name in (f"{FILES[0]}.gz", f"{FILES[1]}.gz"):
        content = formats.read(tmp_path / name)
        assert same(content, arrays[:2])
        assert content.test is None
    for name in (f"{FILES[2]}.gz", FILES[3]):
        content = formats.read(tmp_path / name)
        assert same(content, arrays[2:])
        assert content.train is None


def test_part_of_a_folder_of_idx_files(tmp_path):
    arrays = quartet()
    write_idx(tmp_path, arrays[2:], names=FILES[2:])
    assert same(formats.read(tmp_path, partial=True), arrays[2:])
    with pytest.raises(DataError, match=r"four IDX files, found no train-images-idx3-ubyte \(\.gz"):
        formats.read(tmp_path)


def test_npz_and_csv(tmp_path):
    arrays = quartet(train=20, test=10, shape=(4, 4))
    names = ("x_train", "y_train", "x_test", "y_test")
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "some.npz", **dict(zip(names, arrays, strict=True)))
    assert same(formats.read(tmp_path / "a"), arrays)
    assert same(formats.read(tmp_path / "a" / "some.npz"), arrays)
    write_csv(tmp_path / "b" / "mnist_train.csv", *arrays[:2])
    lone = formats.read(tmp_path / "b")
    assert same(lone, arrays[:2])
    assert lone.test is None
    write_csv(tmp_path / "b" / "mnist_test.csv", *arrays[2:], header=False)
    assert same(formats.read(tmp_path / "b"), arrays)
    assert formats.read(tmp_path / "b" / "mnist_test.csv").train is None


def test_pictures_named_by_class(tmp_path):
    images, labels, *_ = quartet(train=33, classes=11, shape=(6, 7))
    order = np.argsort(labels, kind="stable")
    names = [str(i) for i in range(11)]
    write_pictures(tmp_path / "one", images, labels, names)
    (tmp_path / "one" / "3" / ".DS_Store").write_bytes(b"clutter")
    (tmp_path / "one" / "3" / "Thumbs.db").write_bytes(b"clutter")
    # A Mac leaves such a file beside each picture on foreign disks; this one would even be read.
    Image.fromarray(images[0]).save(tmp_path / "one" / "3" / "._0.png")
    (tmp_path / "one" / ".hidden").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "one" / ".hidden" / "0.png")
    content = formats.read(tmp_path / "one")
    assert content.classes == tuple(names)  # 2 before 10
    assert same(content, (images[order], labels[order]))


def test_pictures_in_two_parts(tmp_path):
    images, labels, more, their = quartet(classes=3, shape=(5, 5))
    names = ["ka", "Ki", "ku"]
    for words in (("train", "test"), ("training", "testing")):
        folder = tmp_path / words[0]
        write_pictures(folder / words[0], images, labels, names)
        write_pictures(folder / words[1], more[their == 1], their[their == 1], names)
        content = formats.read(folder)
        assert content.classes == ("ka", "Ki", "ku")
        assert np.array_equal(content.test.images, more[their == 1])
        assert content.test.labels.tolist() == [1] * int((their == 1).sum())


def test_kinds_of_pictures(tmp_path):
    picture = pictures(1, (8, 9))[0]
    for i, suffix in enumerate(("png", "bmp", "tif", "tiff", "pgm", "PNG")):
        folder = tmp_path / f"c{i}"
        folder.mkdir()
        Image.fromarray(picture).save(folder / f"a.{suffix}")
    bilevel = tmp_path / "c6"
    bilevel.mkdir()
    Image.fromarray(picture > 127).save(bilevel / "a.png")
    content = formats.read(tmp_path)
    assert all(np.array_equal(image, picture) for image in content.train.images[:6])
    assert np.array_equal(content.train.images[6], np.where(picture > 127, 255, 0))


def test_declared_classes(tmp_path):
    arrays = quartet(classes=3)
    write_idx(tmp_path / "idx", arrays)
    (tmp_path / "idx" / "classes.txt").write_text("\ufeffär\n b \nlong name\n\n", "utf-8")
    assert formats.read(tmp_path / "idx").classes == ("är", "b", "long name")
    images, labels = arrays[:2]
    write_pictures(tmp_path / "pictures", images, labels, ["a", "b", "c"])
    (tmp_path / "pictures" / "classes.txt").write_text("c\nb\na\nd\n")
    content = formats.read(tmp_path / "pictures")
    assert content.classes == ("c", "b", "a", "d")
    assert sorted(set(content.train.labels.tolist())) == [0, 1, 2]
    assert np.array_equal(content.train.images[0], images[labels == 2][0])


def test_hidden_files_and_folders_are_no_data(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".train.csv").write_text("1,2")
    with pytest.raises(DataError, match="found other files"):
        formats.read(tmp_path)


def test_holds_files(tmp_path):
    assert not formats.holds_files(tmp_path / "absent")
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / ".hidden.csv").write_text("1")
    (tmp_path / "folder.npz").mkdir()
    assert not formats.holds_files(tmp_path)
    (tmp_path / "Train-Images-IDX3-ubyte").write_bytes(b"")
    assert formats.holds_files(tmp_path)


def change(name, raw):
    def apply(folder):
        write_idx(folder, quartet())
        (folder / name).write_bytes(raw)

    return apply


def remove(name):
    def apply(folder):
        write_idx(folder, quartet())
        (folder / name).unlink()

    return apply


def class_pictures(folder):
    images, labels, *_ = quartet(classes=2)
    return write_pictures(folder, images, labels, ["a", "b"])


def with_picture(name, picture, **options):
    def apply(folder):
        class_pictures(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        picture.save(folder / name, **options)

    return apply


def with_file(name, raw):
    def apply(folder):
        class_pictures(folder)
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(raw)

    return apply


def csv_files(*names):
    def apply(folder):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("1,2,3,4,5\n")

    return apply


def several_npz(folder):
    folder.mkdir()
    for name in ("a.npz", "b.npz"):
        np.savez(folder / name, x=pictures(2), y=np.zeros(2, np.uint8))


def two_sets(folder):
    write_idx(folder, quartet(), names=[f"emnist-digits-{name}" for name in FILES])
    write_idx(folder, quartet(), names=[f"emnist-letters-{name}" for name in FILES])


def other_sizes(folder):
    arrays = quartet()
    write_idx(folder, (*arrays[:2], pictures(20, (14, 14)), arrays[3]))


def many_classes(folder):
    for i in range(101):
        (folder / str(i)).mkdir(parents=True)


grey = Image.fromarray(pictures(1)[0])
REFUSED = {
    "nothing there": (lambda folder: None, "set: expected a file or folder of data, found nothing"),
    "empty folder": (
        lambda folder: folder.mkdir(),
        "a folder of pictures for each class, found an",
    ),
    "other files": (lambda folder: with_only(folder), "for each class, found other files"),
    "empty file": (change(f"{FILES[0]}.gz", b""), f"{FILES[0]}.gz: expected an IDX file of pictur"),
    "no labels": (remove(f"{FILES[3]}.gz"), f"set: expected four IDX files, found no {FILES[3]}"),
    "fewer labels": (
        change(f"{FILES[1]}.gz", gzip.compress(idx.encode(np.zeros(39, np.uint8)))),
        f"{FILES[1]}.gz: expected 40 labels, one for each picture of {FILES[0]}.gz, found 39",
    ),
    "sizes differ": (other_sizes, f"expected pictures of 28×28 pixels, as in {FILES[0]}.gz, found"),
    "two data sets": (two_sets, "expected the IDX files of one data set, found those of emnist-"),
    "two npz": (several_npz, "expected one .npz, found a.npz, b.npz; give the path of one"),
    "two csv": (csv_files("a.csv", "b.csv"), "one with train and one with test in its name"),
    "three csv": (csv_files("train.csv", "test.csv", "extra.csv"), "found extra.csv, test.csv, tr"),
    "colours": (
        with_picture("a/0.png", grey.convert("RGB")),
        "a/0.png: expected a greyscale picture (Pillow's mode L), found mode RGB; convert it",
    ),
    "16 bits": (with_picture("b/1.png", grey.convert("I;16")), "found mode I;16; convert it with"),
    "size": (with_picture("b/1.png", grey.resize((20, 30))), "found 30×20; bring all pictures to"),
    "too large": (with_picture("a/0.png", Image.new("L", (2000, 9))), "sides of at most 1024 pix"),
    "bomb": (
        with_picture("a/0.png", Image.new("1", (20_000, 20_000)), optimize=False),
        "a/0.png: expected a whole picture (",
    ),
    "no picture": (with_file("a/0.png", b"nonsense"), "a/0.png: expected a whole picture (BMP, JP"),
    "cut picture": (with_file("a/zz.png", b"\x89PNG\r\n\x1a\n"), "a/zz.png: expected a whole pict"),
    "other format": (with_file("a/0.png", b"%!PS-Adobe-3.0 EPSF"), "found another file ("),
    "text in class": (with_file("a/notes.txt", b"x"), "a/notes.txt: expected a class folder of p"),
    "no class": (with_file("c/.keep", b""), "c: expected pictures of this class, found none"),
    "part and class": (with_file("train/a/0.png", b""), "the folders train and test, or one folde"),
    "unlisted class": (with_file("classes.txt", b"a\nc\n"), "named as one of a, c, found b"),
    "class twice": (with_file("classes.txt", b"a\na\n"), "classes.txt: expected a different class"),
    "class unnamed": (with_file("classes.txt", b"a\n\nb\n"), "on each line, found an empty line"),
    "empty classes": (with_file("classes.txt", b"\n"), "on each line, found an empty line"),
    "classes no text": (
        with_file("classes.txt", b"\xff\xfe"),
        "classes.txt is damaged: it is not UTF-8 text",
    ),
    "101 classes": (many_classes, "expected at most 100 classes, found 101"),
}


def with_only(folder):
    folder.mkdir()
    (folder / "README.md").write_text("x")


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    make, words = REFUSED[case]
    make(tmp_path / "set")
    before = tree(tmp_path)
    with pytest.raises(DataError) as caught:
        formats.read(tmp_path / "set")
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "set"))
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_idx(tmp_path, quartet())

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(idx, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"idx1-ubyte\.gz: cannot be read: Permission denied"):
        formats.read(tmp_path)


def test_a_file_of_unknown_name(tmp_path):
    (tmp_path / "digits.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"digits\.parquet: expected an IDX file .* of another nam"):
        formats.read(tmp_path / "digits.parquet")
    write_idx(tmp_path, quartet())
    (tmp_path / f"{FILES[1]}.gz").unlink()
    with pytest.raises(DataError, match=r"expected train-labels-idx1-ubyte \(.gz or not\) beside"):
        formats.read(tmp_path / f"{FILES[0]}.gz")
