#!/usr/bin/python3
"""What a player of the demo requests played, most first; and, with --request, that player's request as one JSON line.

    player.py [--request] [PLAYER]        without PLAYER: the players that there are
"""

import json
import pathlib
import sys

STEAM = pathlib.Path(__file__).resolve().parent / "steam"


def main():
    arguments = [a for a in sys.argv[1:] if a != "--request"]
    with open(STEAM / "requests.jsonl", encoding="utf-8") as file:
        requests = {request["id"]: (request, line) for line in file for request in [json.loads(line)]}
    if not arguments:
        print(" ".join(requests))
        return
    if arguments[0] not in requests:
        sys.exit(f"no player '{arguments[0]}' in the demo's requests; there are {len(requests)}, for example {', '.join(list(requests)[:5])}")
    request, line = requests[arguments[0]]
    if "--request" in sys.argv:
        print(line, end="")
        return
    with open(STEAM / "games.tsv", encoding="utf-8") as file:
        titles = {int(fields[0]): fields[3] for fields in (row.rstrip("\n").split("\t") for row in file)}
    history = [titles.get(game, f"game {game}") for game in request["context"]["ids"]["history"]]
    more = f" and {len(history) - 8} more" if len(history) > 8 else ""
    print(f"{arguments[0]} has played {', '.join(history[:8])}{more}; {len(request['candidates'])} other games are to be ranked.")


if __name__ == "__main__":
    main()
