# ruff: noqa: E501  (the lines that users see stand here whole)
"""Bad data, configurations and command lines: one line that says what is wrong, nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
from made_data import FILES, pictures, quartet, save_npz
from made_faults import (
    BAD,
    TRAIN,
    Case,
    arrays,
    assert_refused,
    assert_refused_by_a_process,
    both,
    idx,
    nearly_mnist,
    settings,
    shown,
    study,
    table,
    text,
)
from PIL import Image

CASES = [
    # data files
    Case(
        "nothing is there",
        "data nowhere",
        "nowhere: expected a file or folder of data, found nothing there",
    ),
    Case(
        "an empty folder",
        "data set",
        "set: expected four IDX files, an .npz, CSV files or a folder of pictures for each class, found an empty folder",
        lambda work: (work / "set").mkdir(),
    ),
    Case(
        "a file of an unknown format",
        "data tiny.toml",
        "tiny.toml: expected an IDX file (…-images-idx3-ubyte, .gz or not), an .npz, a .csv or a folder of pictures named by class, found a file of another name",
    ),
    Case(
        "an empty IDX file",
        "data set",
        "set/train-images-idx3-ubyte: expected an IDX file of pictures, found an empty file",
        idx(lambda raw: b"", FILES[0]),
    ),
    Case(
        "an IDX file that is cut off",
        "data set",
        "set/t10k-images-idx3-ubyte: expected 15,696 bytes, as its header says (20 × 28 × 28), found 15,689; the file is damaged or cut off",
        idx(lambda raw: raw[:-7], FILES[2]),
    ),
    Case(
        "an IDX file that is too long",
        "data set",
        "set/train-labels-idx1-ubyte: expected 48 bytes, as its header says (40), found 49; the file is damaged or cut off",
        idx(lambda raw: raw + b"x", FILES[1]),
    ),
    Case(
        "labels in the place of pictures",
        "data set",
        "set/train-images-idx3-ubyte: expected an IDX file of pictures, which starts with 00 00 08 03 and 3 sizes, found 00 00 08 01",
        idx(lambda raw: raw[:3] + b"\1" + raw[4:], FILES[0]),
    ),
    Case(
        "an IDX header of nothing",
        "data set",
        "set/train-images-idx3-ubyte: expected at least one item and one pixel, found 0 × 0 × 0",
        idx(lambda raw: raw[:4] + bytes(12), FILES[0]),
    ),
    Case(
        "a gzip file that is cut off",
        "data set",
        "set/train-images-idx3-ubyte.gz: expected a whole gzip file, found a damaged one; fetch it again (Compressed file ended …)",
        idx(lambda raw: raw[:-100], FILES[0], packed=True),
    ),
    Case(
        "a gzip file with a wrong byte",
        "data set",
        "set/train-images-idx3-ubyte.gz: expected a whole gzip file, found a damaged one; fetch it again (CRC check failed …)",
        idx(lambda raw: raw[:-5] + b"\0" + raw[-4:], FILES[0], packed=True),
    ),
    Case(
        "fewer labels than pictures",
        "data set",
        "set/train-labels-idx1-ubyte: expected 40 labels, one for each picture of train-images-idx3-ubyte, found 39",
        arrays(train_labels=quartet()[1][:-1]),
    ),
    Case(
        "training and test pictures of two shapes",
        "data set",
        "set/t10k-images-idx3-ubyte: expected pictures of 8×8 pixels, as in train-images-idx3-ubyte, found 9×8",
        arrays(test_images=pictures(20, (9, 8))),
    ),
    Case(
        "one of four IDX files missing",
        "data set",
        "set: expected four IDX files, found no t10k-labels-idx1-ubyte (.gz or not)",
        both(arrays(), lambda work: (work / "set" / FILES[3]).unlink()),
    ),
    Case(
        "a label that no picture learns",
        "data set",
        "set/train-labels-idx1-ubyte: expected training pictures of every class 0..11, the largest label, found none of class 10; a label is wrong, or the classes need names in a classes.txt beside the files",
        arrays(test_labels=np.full(20, 11, np.uint8)),
    ),
    Case(
        "a label above 9",
        "evaluate runs/tiny-s0 --data set",
        "set/t10k-labels-idx1-ubyte: expected labels 0..9 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), found 12 at item 0 and 19 more",
        arrays(test_labels=np.full(20, 12, np.uint8)),
    ),
    Case(
        "one class only",
        "data set",
        "set/train-labels-idx1-ubyte: expected 2 to 100 classes, found 1",
        arrays(train_labels=np.zeros(40, np.uint8), test_labels=np.zeros(20, np.uint8)),
    ),
    Case(
        "pictures of another shape than the network reads",
        "evaluate runs/tiny-s0 --data set",
        "set/t10k-images-idx3-ubyte: expected pictures of 8×8 pixels, which the network reads, found 28×28",
        idx(lambda raw: raw, FILES[0]),
    ),
    Case(
        "MNIST with a wrong pixel",
        f"{TRAIN.replace('digits', 'mnist')} --data set",
        "set/train-images-idx3-ubyte.gz: expected MNIST's train-images-idx3-ubyte with sha256 … (decompressed), found …; 3 of the 4 files are those of MNIST, so this one is damaged or changed: replace it (data of your own that shares files with MNIST is declared by a classes.txt beside it)",
        nearly_mnist,
    ),
    Case(
        "another data set than was asked for",
        f"{TRAIN.replace('digits', 'mnist')} --data set",
        "set/train-images-idx3-ubyte: expected MNIST's train-images-idx3-ubyte of 40 × 28 × 28, found 40 × 8 × 8; give a copy of MNIST, or leave the name mnist out to use data of your own",
        arrays(),
    ),
    Case(
        "a data set that is nowhere to be had",
        f"{TRAIN.replace('digits', 'mnist')} --quiet",
        "MNIST could not be had: MNIST's train-images-idx3-ubyte could not be downloaded (127.0.0.1:9: …); put its four IDX files into data/mnist, or name a copy (IDX, mnist.npz, CSV) with --data or ROWWISE_DATA, or let this machine reach a mirror",
    ),
    Case(
        "a data set that is not known",
        "data --dataset minst",
        "expected a data set named mnist, fashion-mnist, kmnist, digits, found 'minst'; did you mean mnist?",
    ),
    Case(
        "digits from a file",
        "data set.csv --dataset digits",
        "digits come with scikit-learn, not from set.csv; leave one of them out",
    ),
    Case(
        "an npz with objects",
        "data set.npz",
        "set.npz/x_train: expected whole numbers 0..255 (uint8), found object; pixels in 0..1 must be multiplied by 255 and rounded",
        lambda work: save_npz(work / "set.npz", [np.array([{}] * 3, object)] * 4),
    ),
    Case(
        "an npz that is none",
        "data set.npz",
        "set.npz: expected a sound .npz, found a damaged one (File is not a zip file)",
        text("set.npz", b"PK\3\4 and no more"),
    ),
    Case(
        "an npz of other arrays",
        "data set.npz",
        "set.npz: expected the arrays x_train, y_train, x_test, y_test (or images, labels), found a",
        lambda work: np.savez(work / "set.npz", a=np.zeros(3)),
    ),
    Case(
        "a word in a CSV",
        "data set.csv",
        "set.csv: expected rows of equal length with whole numbers 0..255, found: could not convert string 'x14' to uint8 at row 2, column 2 (rows are counted from the first row of numbers)",
        table(lambda lines: [*lines[:3], lines[3].replace(",", ",x", 1), *lines[4:]]),
    ),
    Case(
        "a short row in a CSV",
        "data set.csv",
        "set.csv: expected rows of equal length with whole numbers 0..255, found: the number of columns changed from 65 to 64 at row 3 (rows are counted from the first row of numbers)",
        table(lambda lines: [*lines[:3], lines[3].rpartition(",")[0], *lines[4:]]),
    ),
    Case(
        "a pixel of 256 in a CSV",
        "data set.csv",
        "set.csv: expected rows of equal length with whole numbers 0..255, found: could not convert string '256' to uint8 at row 40, column 2 (rows are counted from the first row of numbers)",
        table(lambda lines: [*lines, "1," + ",".join(["256"] * 64)]),
    ),
    Case(
        "a CSV with nothing below its header",
        "data set.csv",
        "set.csv: expected rows of label and pixels, found none",
        table(lambda lines: lines[:1]),
    ),
    Case(
        "pictures of two sizes",
        "data shown",
        "shown/3/zz.png: expected 8×8 pixels (rows×columns) as in shown/0/10.png, found 9×8; bring all pictures to one size",
        shown(lambda at: Image.new("L", (8, 9)).save(at / "3/zz.png")),
    ),
    Case(
        "a picture in colour",
        "data shown",
        "shown/3/zz.png: expected a greyscale picture (Pillow's mode L), found mode RGB; convert it with Image.convert('L')",
        shown(lambda at: Image.new("RGB", (8, 8)).save(at / "3/zz.png")),
    ),
    Case(
        "a damaged picture",
        "data shown",
        "shown/3/zz.png: expected a whole picture (BMP, JPEG, PNG, PPM, TIFF), found another file (cannot identify image file 'shown/3/zz.png')",
        shown(lambda at: (at / "3/zz.png").write_bytes(b"\x89PNG\r\n")),
    ),
    Case(
        "a text among the pictures",
        "data shown",
        "shown/3/zz.txt: expected a class folder of pictures only (.png .jpg .jpeg .bmp .tif .tiff .pgm .pbm), found another kind of file; move it elsewhere",
        shown(lambda at: (at / "3/zz.txt").write_text("no")),
    ),
    Case(
        "a class without pictures",
        "data shown",
        "shown/x: expected pictures of this class, found none; remove the folder, or name all classes "
        "in a classes.txt beside the folders",
        shown(lambda at: (at / "x").mkdir()),
    ),
    Case(
        "a class that the network does not know",
        "evaluate runs/tiny-s0 --data shown",
        "shown: expected the classes of the network (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), found x",
        shown(lambda at: (at / "3").rename(at / "x")),
    ),
    # configurations
    Case(
        "TOML that is none",
        "train bad.toml",
        "bad.toml: it is not valid TOML (Invalid value (at line 1, column 10))",
        text("bad.toml", "epochs = \n"),
    ),
    Case(
        "JSON that is none",
        "train bad.json",
        "bad.json: it is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        text("bad.json", "{"),
    ),
    Case(
        "no UTF-8",
        "train bad.toml",
        "bad.toml is damaged: it is not UTF-8 text",
        text("bad.toml", b"name = '\xff'"),
    ),
    Case(
        "an empty configuration",
        "train bad.toml",
        "bad.toml: name: this key must be given",
        text("bad.toml", ""),
    ),
    Case(
        "a configuration that is too large",
        "train bad.toml",
        "bad.toml: expected at most 1,000,000 bytes, found …; it is damaged, or another kind of file",
        text("bad.toml", "#" * 1_000_001),
    ),
    Case(
        "a configuration that is a folder",
        "train bad.toml",
        "cannot read bad.toml: Is a directory",
        lambda work: (work / "bad.toml").mkdir(),
    ),
    Case(
        "a configuration that is not there",
        "train bad.toml",
        "cannot read bad.toml: No such file or directory",
    ),
    Case(
        "an experiment that is not known",
        "train lstm-tahn",
        "an experiment is one that ships (rnn-relu, rnn-tanh, lstm-tanh, lstm-relu, rows, best) or a .toml or .json file, got 'lstm-tahn'; did you mean 'lstm-tanh'?",
    ),
    Case(
        "a study that is not known",
        "study clasic",
        "a study is one that ships (classic, recognisers) or a .toml or .json file, got 'clasic'; did you mean 'classic'?",
    ),
    Case(
        "an unknown key",
        BAD,
        "bad.json: unknown key 'epoch'; did you mean 'epochs'?",
        settings(epoch=3),
    ),
    Case(
        "an unknown key in a layer",
        BAD,
        "bad.json: unknown key 'layers.0.unit'; did you mean 'layers.0.units'? (and 1 more)",
        settings(layers=[{"kind": "lstm", "unit": 8}]),
    ),
    Case(
        "an unknown key in a branch's layer",
        BAD,
        "bad.json: unknown key 'branches.0.layers.0.activaton'; did you mean 'branches.0.layers.0.activation'?",
        settings(branches=[{"layers": [{"kind": "lstm", "units": 8, "activaton": "relu"}]}]),
    ),
    Case(
        "an unknown key in the optimiser",
        BAD,
        "bad.json: unknown key 'optimizer.lr'; known: beta_1, beta_2, epsilon, kind, learning_rate",
        settings(optimizer={"kind": "adam", "lr": 0.1}),
    ),
    Case(
        "an unknown key in early stopping",
        BAD,
        "bad.json: unknown key 'early_stopping.patiance'; did you mean 'early_stopping.patience'?",
        settings(early_stopping={"patiance": 2}),
    ),
    Case(
        "an unknown key in a study's experiment",
        "study bad.json",
        "bad.json: unknown key 'experiments.0.epoch'; did you mean 'experiments.0.epochs'?",
        study(epoch=3),
    ),
    Case(
        "a value out of range",
        BAD,
        "bad.json: validation: should be 'test' or a share above 0 and up to 0.5, got 0.9",
        settings(validation=0.9),
    ),
    Case(
        "a value of another type",
        BAD,
        "bad.json: epochs: should be a whole number, got 'three'",
        settings(epochs="three"),
    ),
    Case(
        "a name that would leave the folder",
        BAD,
        "bad.json: name: a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit, got '../../etc'",
        settings(name="../../etc"),
    ),
    Case(
        "two experiments of one name",
        "study bad.toml",
        "bad.toml: experiments: every experiment needs a name of its own, 'one' stands twice",
        text(
            "bad.toml", 'name = "s"\n' + '[[experiments]]\nname = "one"\nlayers = ["flatten"]\n' * 2
        ),
    ),
    Case(
        "a sequence into the head",
        BAD,
        "bad: the network must end in one vector a picture, but lstm gives [8, 8]; set return_sequences = false in its last recurrent layer, or add a pool or flatten layer",
        settings(layers=[{"kind": "lstm", "units": 8, "return_sequences": True}]),
    ),
    Case(
        "a vector into a recurrent layer",
        BAD,
        "bad: gru reads a sequence [time steps, features], but lstm gives [8]; set return_sequences = true in the recurrent layer before it",
        settings(layers=[{"kind": "lstm", "units": 8}, {"kind": "gru", "units": 8}]),
    ),
    Case(
        "patches that do not tile the picture",
        BAD,
        "patches must tile the picture of 8 x 8 pixels, got patches of 3 x 4",
        settings(reading={"kind": "patches", "height": 3, "width": 4}),
    ),
    Case(
        "a network beyond all memory",
        BAD,
        "a network has at most 200,000,000 parameters, bad has 269,680,650; reduce units",
        settings(layers=["flatten", *[{"kind": "dense", "units": 16384}] * 2]),
    ),
    # command lines
    Case(
        "an unknown command",
        "tarin",
        "No such command 'tarin'. Did you mean 'train'?; see rowwise --help",
        code=2,
    ),
    Case(
        "an unknown option",
        "train tiny.toml --sed 3",
        "No such option: --sed (Possible options: --set); see rowwise --help",
        code=2,
    ),
    Case(
        "a missing argument",
        "train",
        "Missing argument 'experiment', or --init-from in its place; see rowwise --help",
        code=2,
    ),
    Case(
        "an argument too many",
        "doctor now",
        "Got unexpected extra argument(s) (now); see rowwise --help",
        code=2,
    ),
    Case(
        "an option without its value",
        "train tiny.toml --out",
        "Option '--out' requires an argument; see rowwise --help",
        code=2,
    ),
    Case(
        "a number that is none",
        "train tiny.toml --threads two",
        "Invalid value for '--threads': …integer…; see rowwise --help",
        code=2,
    ),
    Case(
        "no threads at all",
        "train tiny.toml --threads 0",
        "Invalid value for '--threads': Input should be greater than or equal to 1; see rowwise --help",
        code=2,
    ),
    Case(
        "no seeds at all",
        "study --seeds 0",
        "Invalid value for '--seeds': Input should be greater than or equal to 1; see rowwise --help",
        code=2,
    ),
    Case(
        "an override without a value",
        f"{TRAIN} --set epochs",
        "--set takes key=value, such as layers.1.units=256, got 'epochs'",
    ),
    Case(
        "an override of an unknown key",
        f"{TRAIN} --set epoch=3",
        "experiment tiny: unknown key 'epoch'; did you mean 'epochs'?",
    ),
    Case(
        "an override beyond the layers",
        f"{TRAIN} --set layers.2.units=8",
        "--set layers.2.units=8: the list layers has the indices 0 to 1, got '2'",
    ),
    Case(
        "an override out of range",
        f"{TRAIN} --set epochs=0",
        "experiment tiny: epochs: should be greater than or equal to 1, got 0",
    ),
    Case(
        "an experiment that the study lacks",
        "study --dataset digits --only lstm",
        "--only takes names of the study's experiments, got 'lstm'; the study classic has: rnn-relu, rnn-tanh, lstm-tanh, lstm-relu; did you mean 'lstm-tanh'?",
    ),
    Case(
        "an unknown engine",
        f"{TRAIN} --set seed=2 --engine tensorflow",
        "an engine is one of auto, native, plain, torch, got 'tensorflow'",
    ),
    Case(
        "the plain engine to train",
        f"{TRAIN} --set seed=2 --engine plain",
        "the engine plain cannot train tiny: the plain engine runs networks and does not train them",
    ),
    Case(
        "the plain engine for a study",
        "study bad.json --engine plain",
        "the engine plain cannot train one: the plain engine runs networks and does not train them",
        study(),
    ),
    Case(
        "one run to compare",
        "runs runs/tiny-s0 --compare",
        "--compare takes two runs, got 1; name two run folders",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, work, rowwise):
    assert_refused(case, work, rowwise)


def test_there_are_enough_cases():
    assert len({case.name for case in CASES}) == len(CASES) >= 45


IN_A_PROCESS = ["a gzip file that is cut off", "an unknown key in a layer", "an unknown command"]


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_bad_input_to_a_real_process(name, work):
    assert_refused_by_a_process(next(case for case in CASES if case.name == name), work)
