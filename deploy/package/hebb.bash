# bash completion of hebb, hebbd: what the programs' own help lists
_hebb() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "help $(hebb help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')" -- "$current")
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(hebb "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u)" -- "$current")
    elif [[ $command =~ ^(show|watch|logs|cancel|pause|resume|checkpoint|compare)$ ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(hebb jobs --json 2>/dev/null | grep -oE '"id": ?"[0-9a-f]{16}"' | grep -oE '[0-9a-f]{16}')" -- "$current")
    fi
    ((${#COMPREPLY[@]} > 0)) || mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
_hebbd() {
    local current=${COMP_WORDS[COMP_CWORD]}
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(hebbd --help | grep -oE -- '^ *--[a-z][a-z-]*')" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -o filenames -F _hebb hebb
complete -o filenames -F _hebbd hebbd
