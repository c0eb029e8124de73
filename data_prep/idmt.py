"""IDMT-SMT-Audio-Effects: notes of guitars and basses through twelve classes of effects.

Stein, M., Abeßer, J., Dittmar, C., Schuller, G.: Automatic detection of audio effects in guitar
and bass recordings. AES Convention 128 (2010).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from data_prep import files, store
from data_prep.audio import DEFAULT, SECONDS_A_FILE, SUFFIXES, TASKS, Framing, write_sequences
from data_prep.harvest import Harvest, Progress, harvest
from data_prep.splits import check_fractions, linked, same, split_by
from data_prep.summary import summary

PathLike = str | os.PathLike[str]

EFFECTS = {
    **{"11": "NoFX", "12": "EQ", "21": "FeedbackDelay", "22": "SlapbackDelay", "23": "Reverb"},
    **{"31": "Chorus", "32": "Flanger", "33": "Phaser", "34": "Tremolo", "35": "Vibrato"},
    **{"41": "Distortion", "42": "Overdrive"},
}
_INSTRUMENTS = {"B": "bass", "G": "guitar", "P": "polyphonic guitar"}
_NAME = re.compile(
    r"(?P<note>(?P<A>[BGP])(?P<B>\d)(?P<C>\d)-(?P<DD>\d\d)(?P<E>\d)(?P<FF>\d\d))"
    rf"-\d(?P<HH>{'|'.join(EFFECTS)})(?P<I>\d)-\d+\.wav",
    re.IGNORECASE,
)


def clean_note(name: str) -> str:
    """What was played, without the effect: the unit to split by.

    >>> clean_note("Gitarre monophon2.zip/Samples/Tremolo/G73-45200-3341-33944.wav")
    'G73-45200'
    """
    return labels(name)["note"]


def labels(name: str) -> dict[str, str]:
    """What the name of a file says, ``ABC-DDEFF-GHHI-KKKKK.wav``.

    Returns:
        ``note`` (ABC-DDEFF), ``instrument``, ``instrument_setting``, ``technique``, ``pitch``
        (MIDI; the lowest of a chord), ``string`` and ``fret`` (empty for chords and where the
        string is 0: unknown), ``chord`` (its code; empty for single notes), ``effect`` and
        ``effect_setting``.

    Raises:
        ValueError: it is another kind of name.

    >>> it = labels("Chorus/B11-28103-3312-00001.wav")
    >>> it["instrument"], it["pitch"], it["string"], it["fret"], it["effect"]
    ('bass', '28', '1', '3', 'Chorus')
    """
    match = _NAME.fullmatch(_base(name))
    if not match:
        raise ValueError(
            "the name is not of the form ABC-DDEFF-GHHI-KKKKK.wav with a known effect HH"
        )
    single = match["A"].upper() != "P"
    fretted = single and match["E"] != "0"
    return {
        "note": match["note"].upper(),
        "instrument": _INSTRUMENTS[match["A"].upper()],
        "instrument_setting": match["B"],
        "technique": match["C"],
        "pitch": str(int(match["DD"])),
        "string": match["E"] if fretted else "",
        "fret": str(int(match["FF"])) if fretted else "",
        "chord": "" if single else match["E"] + match["FF"],
        "effect": EFFECTS[match["HH"]],
        "effect_setting": match["I"],
    }


def prepare_idmt(
    paths: PathLike | Iterable[PathLike],
    output: PathLike,
    framing: Framing = DEFAULT,
    effects: Sequence[str] = (),
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the recordings of IDMT-SMT-Audio-Effects to `output`, split by clean note.

    So no note is heard in training through one effect and in the test through another. Of files
    that bear the same name (the set ships one of its archives twice) or hold the same frames the
    first is taken. Files with other names are skipped and named.

    Args:
        paths: folders and archives, also one in another, as the set comes.
        output: HDF5 file to make; its labels are those of `labels`.
        framing: how recordings become frames.
        effects: names out of `EFFECTS`; none means all.
        fractions: of the clean notes for train, valid and test.
        seed: of the split.
        progress: called with (done, total, skipped) after each file.

    Returns:
        The summary of `prepare --json`, and ``repeated``, the files left out as duplicates.

    Raises:
        ValueError: no recording, or none that can be used; nothing is written.
    """
    store.check_output(output)
    check_fractions(fractions)
    if unknown := set(effects) - set(EFFECTS.values()):
        known = ", ".join(EFFECTS.values())
        raise ValueError(f"unknown effect {sorted(unknown)[0]!r}; known: {known}")
    found = files.find(paths, SUFFIXES[:1], "IDMT")
    wanted, skipped = _wanted(found, effects)
    once = [wanted[n] for n in dict.fromkeys(_first_names(wanted))]
    if not once:
        name, reason = skipped[0] if skipped else (found[0].name, f"not {' or '.join(effects)}")
        raise ValueError(f"{name}: {reason}; none of {len(found)} files could be used")
    with harvest(output, TASKS, once, framing, SECONDS_A_FILE, progress) as read:
        parts = _split(read, fractions, seed)
        dataset = write_sequences(
            output, read, parts, framing, labels=labels, name="audio effects", seed=seed
        )
        skipped += read.skipped
        made = summary(dataset, output, found=len(found), read=len(parts), skipped=skipped)
        repeated = len(wanted) - len(once) + len(read.taken) - len(parts)
        return {**made, "repeated": repeated}


def _first_names(wanted: Sequence[files.File]) -> list[int]:
    """For each file the first that bears its name, in whatever folder."""
    names = [file.name if file.damage else _base(file.name).upper() for file in wanted]
    return linked(len(names), same(names))


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _wanted(
    found: Iterable[files.File], effects: Sequence[str]
) -> tuple[list[files.File], list[tuple[str, str]]]:
    """The files of these effects, and (name, reason) of those whose name says nothing.

    An archive that is damaged is wanted: reading it gives the reason.
    """
    wanted: list[files.File] = []
    skipped = []
    for file in found:
        try:
            if file.damage or labels(file.name)["effect"] in (effects or EFFECTS.values()):
                wanted.append(file)
        except ValueError as error:
            skipped.append((file.name, str(error)))
    return wanted, skipped


def _split(read: Harvest, fractions: tuple[float, float, float], seed: int) -> dict[int, str]:
    """The split of each recording that is the first with its frames."""
    notes = [clean_note(read.files[n].name) for n in read.taken]
    digests = [read.digests[n] for n in read.taken]
    again = same(digests)
    keys = [notes[n] for n in linked(len(notes), same(notes) + again)]
    repeated = {later for _, later in again}
    parts = zip(read.taken, split_by(keys, fractions, seed), strict=True)
    return {n: part for place, (n, part) in enumerate(parts) if place not in repeated}
