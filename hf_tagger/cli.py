"""The `hf_tagger` command: `hf_tagger serve MODEL`. Each subcommand is imported only when it is called."""

import importlib
import sys

# name: (module, what it does); the module's main(arguments) gives the exit status.
COMMANDS = {
    "review": ("hf_tagger.review.command", "open a page on which people accept and correct a catalogue's tags"),
    "serve": ("hf_tagger.deployment.serve", "answer requests for tags over HTTP"),
}


def main() -> int:
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(arguments)
    lines = ["usage: hf_tagger COMMAND ... (hf_tagger COMMAND --help says more)", ""]
    lines += [f"  {command:10} {does}" for command, (_, does) in COMMANDS.items()]
    wanted = name in ("-h", "--help")
    if not wanted:
        lines.insert(0, f"hf_tagger: there is no command {name!r}")
    print("\n".join(lines), file=sys.stdout if wanted else sys.stderr)
    return 0 if wanted else 2


if __name__ == "__main__":
    sys.exit(main())
