# Login shells, and display managers that read them.
case ":$XDG_DATA_DIRS:" in
    *:/opt/mirabelle/active/share:*) ;;
    *) export XDG_DATA_DIRS="/opt/mirabelle/active/share:${XDG_DATA_DIRS:-/usr/local/share:/usr/share}" ;;
esac
case ":$PATH:" in
    *:/opt/mirabelle/active/bin:*) ;;
    *) export PATH="/opt/mirabelle/active/bin:$PATH" ;;
esac
