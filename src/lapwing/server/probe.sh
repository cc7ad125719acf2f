# Prints what a server has, as `key=value` lines, and changes nothing.
. /etc/os-release 2>/dev/null
echo "os=${ID:-unknown}"
echo "os_like=${ID_LIKE:-}"
echo "os_name=${PRETTY_NAME:-unknown}"
echo "machine=$(uname -m)"
echo "user=$(id -u)"
echo "clock=$(date +%s)"
echo "memory=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo "disk=$(df -Pk /var/lib | awk 'NR == 2 {print $4}')"
[ -d /run/systemd/system ] && echo "systemd=yes"
if touch /var/lib/.lapwing-probe 2>/dev/null; then
  rm -f /var/lib/.lapwing-probe
  echo "writable=yes"
fi
grep -qs pam_systemd /etc/pam.d/common-session && echo "pam_systemd=yes"
command -v apt-get >/dev/null && echo "apt=yes"
command -v git >/dev/null && echo "git=yes"
for python in python3.14 python3.13 python3.12 python3.11 python3; do
  if $python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "python=$(command -v $python)"
    break
  fi
done
echo "python_version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
for family in 4 6; do
  echo "ipv$family=$(ip -o -$family address show scope global 2>/dev/null | wc -l)"
done
for port in 80 443; do
  # The first program that listens: users:(("nginx",pid=12,fd=6),...
  owner=$(ss -Hltnp "sport = :$port" 2>/dev/null \
    | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 \2/p' | head -n 1)
  echo "port_$port=$owner"
done
exit 0
