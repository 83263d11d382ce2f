"""The command line: ``neuralsim record | data | train | world | evaluate | agent | play | ...``.

Every command is a config dataclass and a function in the module that does the work; this file only finds them.
Modules are imported when their command is called, so that ``neuralsim --help`` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command lives: ``module.function(module.config)``."""

    module: str
    config: str
    function: str
    summary: str


COMMANDS: dict[str, Command] = {
    "record": Command("neuralsim.envs.recording", "RecordConfig", "record", "record a real environment being played"),
    "data show": Command("neuralsim.data.show", "ShowConfig", "show", "counts, histograms and a contact sheet"),
    "data import": Command(
        "neuralsim.data.interchange",
        "ImportConfig",
        "import_data",
        "read MineRL, VPT, Minari, or a folder of videos with a table of actions",
    ),
    "data export": Command(
        "neuralsim.data.interchange",
        "ExportConfig",
        "export_data",
        "write Minari, or a folder of videos with a table of actions",
    ),
    "data join": Command("neuralsim.data.join", "JoinConfig", "join", "several recordings of a game as one"),
    "train tokenizer": Command(
        "neuralsim.training.tokenizer",
        "TokenizerRun",
        "train_tokenizer",
        "frames to latents: the first model to train",
    ),
    "train dynamics": Command(
        "neuralsim.training.dynamics",
        "DynamicsRun",
        "train_dynamics",
        "what comes next, what it pays and when it ends: the second",
    ),
    "train world": Command(
        "neuralsim.training.whole_world", "WorldRun", "train_world", "all of it, from recordings to a world folder"
    ),
    "world pack": Command(
        "neuralsim.training.pack", "PackConfig", "pack", "put trained parts together as a world folder"
    ),
    "evaluate": Command(
        "neuralsim.evaluation.run",
        "EvaluateConfig",
        "evaluate",
        "measure a world on held-out recordings and write its card",
    ),
    "card": Command(
        "neuralsim.evaluation.show_card", "CardConfig", "show_card", "print how far a world can be trusted, as measured"
    ),
    "compare": Command(
        "neuralsim.evaluation.compare", "CompareConfig", "compare", "put two worlds side by side on the same clips"
    ),
    "agent train clone": Command(
        "neuralsim.agents.cloning", "CloningRun", "train_cloning", "an agent that does as the recorded players did"
    ),
    "agent train pmpo": Command(
        "neuralsim.agents.imagination_run",
        "PMPORun",
        "train_in_imagination",
        "an agent that improves on its clone in a dream (PMPO)",
    ),
    "agent train actor-critic": Command(
        "neuralsim.agents.imagination_run",
        "ActorCriticRun",
        "train_in_imagination",
        "the same by actor-critic, with lambda-returns and an entropy bonus",
    ),
    "agent train preference": Command(
        "neuralsim.agents.preferences.run",
        "PreferenceRun",
        "train_preference",
        "a reward that foretells which of two segments is preferred",
    ),
    "agent train ppo": Command(
        "neuralsim.agents.ppo_run", "PPORun", "train_ppo", "an agent on pixels, in a dream or a real game, from nothing"
    ),
    "agent curves": Command(
        "neuralsim.agents.learning_curves", "CurvesConfig", "draw_curves", "draw how agents learned, seed by seed"
    ),
    "agent evaluate": Command(
        "neuralsim.agents.agent_evaluation", "AgentEvaluation", "evaluate_agent", "let an agent play whole episodes"
    ),
    "preferences label": Command(
        "neuralsim.agents.preferences.labelling",
        "LabelConfig",
        "label",
        "choose between recorded segments, shown two by two",
    ),
    "doctor": Command(
        "neuralsim.training.doctor",
        "DoctorConfig",
        "doctor",
        "check a world, a training run or recordings, with advice",
    ),
    "play": Command("neuralsim.envs.play", "PlayConfig", "play", "play a dream or a real game with keyboard and mouse"),
    "demo": Command("neuralsim.envs.demo", "DemoConfig", "demo", "play the bundled Pong, or film a scripted player"),
}


def usage() -> str:
    """The text of ``neuralsim --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: neuralsim COMMAND [options]      (neuralsim COMMAND --help explains the options)",
            "",
            "Learned simulators as ordinary Gymnasium environments.",
            "",
            *lines,
            "",
            "A first look:   neuralsim demo",
            "Your own world: neuralsim record, train world, evaluate, play",
        ]
    )


def unknown_command(words: list[str]) -> str:
    """What to tell of words that begin no command: the group they begin, the nearest command, or the usage."""
    said = [word for word in words if not word.startswith("-")]
    for n in range(len(said), 0, -1):
        group = [name for name in COMMANDS if name.split()[:n] == said[:n]]
        if group:
            rest = f"neuralsim {' '.join(said[:n])} does what? There are"
            width = max(map(len, group))
            return "\n".join([rest, *(f"  neuralsim {name:<{width}}  {COMMANDS[name].summary}" for name in group)])
    near = difflib.get_close_matches(" ".join(said[:3]), COMMANDS, n=1, cutoff=0.5)
    near = near or difflib.get_close_matches(" ".join(said[:1]), COMMANDS, n=1)
    hint = f"; did you mean neuralsim {near[0]}?" if near else ""
    return f"{usage()}\n\nerror: unknown command {' '.join(words[:2])!r}{hint}"


def parse(module: Any, command: Command, name: str, arguments: list[str]) -> Any:
    """Reads a command's options into its config; ``--preset NAME`` chooses the defaults where there are presets."""
    import tyro

    config_type = getattr(module, command.config)
    presets = getattr(config_type, "presets", None)
    default = None
    if presets is not None:
        available = presets()
        for i, word in enumerate(arguments):
            key, _, value = word.partition("=")
            if key == "--preset":
                value = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
                if value not in available:
                    raise ValueError(f"unknown preset {value!r}; there are {', '.join(sorted(available))}")
                default = available[value]
                arguments = arguments[:i] + arguments[i + (1 if "=" in word else 2) :]
                break
    description = inspect.cleandoc(config_type.__doc__ or command.summary).split("Attributes:")[0].strip()
    if presets is not None:
        description += f"\n\nPresets: --preset {{{','.join(sorted(available))}}} chooses the defaults below."
    kwargs = {} if default is None else {"default": default}
    return tyro.cli(config_type, prog=f"neuralsim {name}", description=description, args=arguments, **kwargs)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0 done, 2 a mistake in the call, 130 interrupted; or the ``exit_status`` of what the command
        gives back, such as 1 where the doctor found something wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        from neuralsim import __version__

        print(f"neuralsim {__version__}")
        return 0
    name = next((" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        asked = words[-1] in ("-h", "--help")
        print(unknown_command(words), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
        config = parse(module, command, name, words[len(name.split()) :])
        result = getattr(module, command.function)(config)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("NEURALSIM_TRACEBACK"):
            raise
        print(f"error: {error}\n(NEURALSIM_TRACEBACK=1 shows where)", file=sys.stderr)
        return 2
    return int(getattr(result, "exit_status", 0))


if __name__ == "__main__":
    sys.exit(main())
