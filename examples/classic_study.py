# %% [markdown]
# # The classic study, step by step
#
# A picture of 28 rows is a sequence of 28 time steps of 28 pixels. This notebook looks at the
# data, trains one recurrent network while you watch, and then reads a whole study: four
# networks, several seeds each.
#
# It uses the public Python API alone. You can run it again: with `DATASET = "digits"` it takes
# under a minute and needs no download. With MNIST, run `make study` first; the runs that it
# keeps are read here, and only what is missing is trained.

# %%
DATASET = "mnist"
STUDY = "../study"  # where `make study` keeps its runs
SEEDS = 3
ONLY = ()  # names of networks; none stands for all four
EPOCHS = 2  # of the network that is trained in this notebook; the study has 5
THREADS = 1

# %%
import time

import numpy as np
from IPython.display import Image, Markdown, Pretty, display

import rowwise
from rowwise import (
    comparison,
    curves,
    diagram,
    drawing,
    figures,
    illustrations,
    metrics,
    pictures,
    tabulation,
)
from rowwise.data import describe
from rowwise.events import Ended, EpochEnded, Started, Stepped
from rowwise.findings import findings
from rowwise.terminal import epoch_line


def show(figure, caption=""):
    """Show a figure in its own size."""
    display(Image(drawing.png(figure, dpi=120), width=round(96 * figure.get_figwidth())))
    if caption:
        display(Markdown(f"*{caption}*"))


def show_table(table):
    """Show a table of a study."""
    lines = [table.heads, ["---"] * len(table.heads), *table.rows]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    display(Markdown(f"**{table.caption}**\n\n{rows}\n\n{table.note}"))


# %% [markdown]
# ## The data
#
# Every data set comes in two parts: training images to learn from, test images to be judged by.
# Paper is 0, ink is 255. `describe` counts what is in them.

# %%
data = rowwise.load_data(DATASET)
told = describe(data)
print(f"{data.name}: {len(data.train_labels):,} training and {len(data.test_labels):,} test images")
print(f"{data.shape[0]} rows of {data.shape[1]} pixels, {len(data.classes)} classes")
for name, part in (("training", told.train), ("test", told.test)):
    print(f"{name}: mean grey value {part.pixel_mean:.1f}, {100 * part.ink_share:.1f} % inked")
print(f"test images that are also training images: {told.duplicates_between.count}")

# %%
panels = [
    figures.Counts("Training data", told.train.class_counts),
    figures.Counts("Test data", told.test.class_counts),
]
show(figures.class_distribution(panels, data.classes))

# %% [markdown]
# The classes are not equally frequent. Whoever always said the most frequent one would be right
# this often; it is what the networks have to beat.

# %%
counts = np.array(told.test.class_counts)
print(f"always {data.classes[counts.argmax()]}: {100 * counts.max() / counts.sum():.1f} % right")

# %%
sheet = pictures.stack([data.train_images[list(places)] for places in told.samples])
show(pictures.samples(sheet, data.classes), "Training images, one row a class.")

# %%
show(pictures.mean_images(told.mean_images, data.classes), "The mean image of each class.")

# %% [markdown]
# Where a mean image is sharp, people write that digit alike. A recurrent network never sees it
# whole: it sees one row, keeps a state, and sees the next.

# %% [markdown]
# ## One network
#
# An experiment is data: layers, optimiser, batch size, epochs, seed. This is the study's
# `lstm-tanh`. The closing softmax layer over the classes is added by itself.

# %%
classic = rowwise.shipped_studies()["classic"]
(chosen,) = classic.only(["lstm-tanh"]).experiments
experiment = chosen.with_overrides([f"epochs={EPOCHS}"])
network = rowwise.Network(experiment, data.shape, len(data.classes))
print(network.summary())


# %%
def shape_text(shape):
    """A shape as Keras writes it; None stands for the number of images in a batch."""
    return f"({', '.join(['None', *map(str, shape)])})"


boxes = [
    diagram.Box(
        name=node.name,
        kind=node.type,
        inputs=shape_text(node.input_shapes[0] if node.input_shapes else node.output_shape),
        output=shape_text(node.output_shape),
        inbound=node.inbound,
    )
    for node in network.nodes
]
show(diagram.model_plot(boxes))

# %% [markdown]
# ## Training it, live
#
# `fit` prints nothing; it calls back with events. This callback keeps one line up to date while
# the network learns, and prints Keras' line after each epoch.


# %%
class Live:
    """One line that moves, and a line for each epoch."""

    def __init__(self):
        self.line, self.shown = None, 0.0

    def __call__(self, event):
        match event:
            case Started():
                self.line = display(Pretty("starting"), display_id=True)
            case Stepped() if time.monotonic() - self.shown > 0.25:
                self.shown = time.monotonic()
                place = f"epoch {event.epoch}/{event.epochs}, step {event.step}/{event.steps}"
                means = f"loss {event.loss:.4f}, accuracy {event.accuracy:.4f}"
                self.line.update(Pretty(f"{place}: {means}"))
            case EpochEnded():
                print(epoch_line(event.metrics, event.epochs))
            case Ended():
                self.line.update(Pretty(event.sentence))


result = rowwise.fit(experiment, data, threads=THREADS, callbacks=[Live()])

# %% [markdown]
# Training loss and accuracy are means over an epoch, taken while the weights move; validation
# comes after it. So early on the validation curve may lie above the training curve.

# %%
epochs = result.metrics
loss = curves.Curve(experiment.name, [[e.loss for e in epochs]], [[e.val_loss for e in epochs]])
accuracy = curves.Curve(
    experiment.name, [[e.accuracy for e in epochs]], [[e.val_accuracy for e in epochs]]
)
show(curves.training_curves(loss, accuracy))

# %% [markdown]
# How good is it? The interval says what the share of right answers would be on other images of
# the same kind. It says nothing of another seed; for that one needs more runs.

# %%
said = result.probabilities.argmax(axis=1)
right = int((said == data.test_labels).sum())
share = comparison.proportion_interval(right, len(said))
print(f"{right:,} of {len(said):,} test images read rightly, {100 * right / len(said):.2f} %")
print(f"95 % interval over images: {100 * share.low:.2f} to {100 * share.high:.2f} %")

# %%
matrix = metrics.confusion(data.test_labels, said, len(data.classes))
show(figures.confusion(matrix, data.classes), "Rows: what it is. Columns: what the network said.")

# %% [markdown]
# The mistakes it was surest of come first. Which of them would you have read?

# %%
sure = result.probabilities.max(axis=1)
wrong = np.flatnonzero(said != data.test_labels)
worst = wrong[np.argsort(-sure[wrong], kind="stable")][:30]
gallery = [
    pictures.Misread(
        data.test_images[place],
        data.classes[data.test_labels[place]],
        data.classes[said[place]],
        float(sure[place]),
    )
    for place in worst
]
show(pictures.misread(gallery))

# %% [markdown]
# ## The study
#
# Four networks, each with several seeds. `run_study` keeps every run in a folder; runs that
# ended are not made again, and one that was stopped goes on where it stopped.


# %%
def announce(planned, index, count):
    """Say which run comes."""
    print(f"[{index + 1}/{count}] {planned.folder.name}")


outcome = rowwise.run_study(
    classic,
    data,
    out=STUDY,
    seeds=SEEDS,
    only=ONLY,
    threads=THREADS,
    callbacks=[Live()],
    on_run=announce,
)
study = rowwise.summarise(STUDY)

# %% [markdown]
# One run of a network is one draw from what its recipe can give. So the study shows every seed,
# their mean, and the 95 % interval of that mean. In the classic study the validation data are
# the test images; nothing was chosen by them here.

# %%
for made in (tabulation.results(study), tabulation.published(study)):
    if made is not None:
        show_table(made)

# %%
drawn = illustrations.results(study)
show(drawn.drawn, drawn.caption)

# %% [markdown]
# A published figure *inside* says that nothing speaks against a faithful repetition. With three
# seeds the range is wide and holds much.

# %%
for kind in (True, False):
    drawn = illustrations.overview(study, accuracy=kind)
    show(drawn.drawn, drawn.caption)

# %% [markdown]
# ## Which differences are real?
#
# Two questions, two tests. Paired by seed: would one recipe beat the other again? McNemar, on
# the same images: do these two trained models differ? Both with Holm's correction, for many
# pairs are tested.

# %%
for made in (tabulation.differences(study), tabulation.models(study)):
    if made is not None:
        show_table(made)

# %% [markdown]
# ## A closer look at the best
#
# The run with the middle score of the network with the best mean: not the luckiest one.

# %%
best = max(study.networks, key=lambda one: one.test_accuracy.mean)
print(f"{best.name}, seed {best.model.seed}")
for drawn in (
    illustrations.confusion(study, best),
    illustrations.calibration(study, best),
    illustrations.gallery(study, best),
):
    show(drawn.drawn, drawn.caption)

# %% [markdown]
# ## What the study found
#
# These sentences are computed from the runs. The report, `rowwise report`, has them too, with
# all figures for every network.

# %%
display(Markdown("\n".join(f"- **{f.topic}.** {f.claim} {f.detail}" for f in findings(study))))
