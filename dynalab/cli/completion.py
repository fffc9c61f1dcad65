"""`dynalab completion SHELL`: a script that completes command lines, and what it asks dynalab for."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cached_property
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

# What the scripts set: whose words are completed and how they are wanted, `bash_complete`.
VARIABLE = "_DYNALAB_COMPLETE"
HOW = {
    "bash": 'eval "$(dynalab completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(dynalab completion zsh)" in ~/.zshrc, after compinit',
    "fish": "dynalab completion fish > ~/.config/fish/completions/dynalab.fish",
}

# Bash breaks words at `=` and `:`, and replaces what stands behind the last of them; $2 is that. Called without a line,
# words that were broken are put together again.
_BASH = """\
%(complete_func)s() {
    local line=${COMP_LINE:0:${COMP_POINT:-0}} tail=${2-${COMP_WORDS[COMP_CWORD]}} kind word i
    if [[ -z $line ]]; then
        for ((i = 0; i <= COMP_CWORD; i++)); do
            [[ $i == 0 || ${COMP_WORDS[i]} == [=:] || ${COMP_WORDS[i-1]} == [=:] ]] || line+=' '
            line+=${COMP_WORDS[i]}
        done
    fi
    [[ $tail == [=:] ]] && tail=
    COMPREPLY=()
    while IFS=$'\\t' read -r kind word; do
        case $kind in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            open) compopt -o nospace 2>/dev/null; COMPREPLY+=("$word") ;;
            *) COMPREPLY+=("$word") ;;
        esac
    done < <(COMP_LINE=$line COMP_TAIL=$tail %(complete_var)s=bash_complete "${1:-${COMP_WORDS[0]}}" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local kind word about program=${words[1]}
    local -i failed=1
    local -a closed open
    while IFS=$'\\t' read -r kind word about; do
        case $kind in
            dir) _files -/ && failed=0 ;;
            file) _files && failed=0 ;;
            open) open+=("${word//:/\\\\:}${about:+:$about}") ;;
            *) closed+=("${word//:/\\\\:}${about:+:$about}") ;;
        esac
    done < <(COMP_LINE="${(j: :)words[1,CURRENT]}" %(complete_var)s=zsh_complete ${~program} 2>/dev/null)
    (( $#closed )) && _describe -V %(prog_name)s closed && failed=0
    (( $#open )) && _describe -V %(prog_name)s open -S '' && failed=0
    return failed
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

# Fish itself sets no space behind `=`, `.` and `/`.
_FISH = """\
function %(complete_func)s
    set -l program (commandline -po)[1]
    set -l answer (COMP_LINE=(commandline -cp | string collect) %(complete_var)s=fish_complete $program 2>/dev/null)
    for item in $answer
        set -l part (string split -m 1 \\t -- $item)
        switch $part[1]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
            case '*'
                echo $part[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments '(%(complete_func)s)'
"""


class _Word(click.types.StringParamType):
    """The type of the arguments and options of text while a word is completed: their metavars say what they take."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return what the word may become."""
        from dynalab.cli import candidates

        if param.metavar in ("DIR", "FILE", "FILE..."):
            return [CompletionItem(incomplete, type="dir" if param.metavar == "DIR" else "file")]
        return [
            CompletionItem(item.text, "open" if item.goes_on else "plain", item.about)
            for item in candidates.of(ctx, param, incomplete)
        ]


class _Complete(ShellComplete):
    """Completion from the line up to the cursor, one candidate a line: how it goes on, the word, what it is."""

    source_template: ClassVar[str] = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and that one."""
        # A letter at the end, so that the last word is there even where it is empty.
        _, *words = split_arg_string(f"{os.environ.get('COMP_LINE', '')}\0")
        return words[:-1], words[-1].removesuffix("\0") if words else ""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return what the last word may become."""
        command: Any = self.cli
        for word in args:
            if isinstance(command, click.Group) and not word.startswith("-"):
                command = command.get_command(click.Context(command), word)
        for param in getattr(command, "params", ()):
            if param.type is click.STRING:
                param.type = _Word()
        return super().get_completions(args, incomplete)

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return a candidate as the scripts read it."""
        from dynalab.cli.candidates import one_line

        return "\t".join(filter(None, (item.type, one_line(item.value), one_line(item.help or ""))))


@add_completion_class
class _Bash(_Complete):
    """Bash: it shows no words about candidates, and replaces only what stands behind the last `=` or `:`."""

    name = "bash"
    source_template = _BASH

    @cached_property
    def _kept(self) -> str:
        """What stands before what bash replaces of the word."""
        word, tail = self.get_completion_args()[1], os.environ.get("COMP_TAIL", "")
        return word.removesuffix(tail) if word.endswith(tail) else ""

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return a candidate without what bash keeps of the word."""
        return f"{item.type}\t{item.value.removeprefix(self._kept)}"


@add_completion_class
class _Zsh(_Complete):
    name = "zsh"
    source_template = _ZSH


@add_completion_class
class _Fish(_Complete):
    name = "fish"
    source_template = _FISH


SHELLS = {cls.name: cls for cls in (_Bash, _Zsh, _Fish)}


def answer(app: click.Command, asked: str) -> int:
    """Print what a word may become, as a script asked, and return 0: whatever is wrong, a shell is not disturbed."""
    text = ""
    # What plug-ins print is no candidate.
    silent = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    with contextlib.suppress(Exception, SystemExit), silent[0], silent[1]:
        text = SHELLS[asked.removesuffix("_complete")](app, {}, "dynalab", VARIABLE).complete()
    if text:
        click.echo(text)
    return 0


HELP = (
    "Print a script that completes commands, keys, values and ids when TAB is pressed. Where it goes:\n\n\b\n"
)


@click.command("completion", help=HELP + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the script of a shell."""
    click.echo(SHELLS[shell](command, {}, "dynalab", VARIABLE).source(), nl=False)
