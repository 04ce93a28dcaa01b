# What a hostile job looks for and tries. It prints a line `WHAT: open` for each attack that works, and every canary that
# it finds, as it is: the search over all logs does the rest.
import ctypes, glob, json, os, re, socket, stat, subprocess, sys, tempfile

known = json.load(open('known.json'))
CANARY = re.compile(rb'tw/[a-z]+\+"[0-9a-f]{24}')
libc = ctypes.CDLL(None, use_errno=True)
looked = 0


def seen(data, where):
    global looked
    looked += 1
    for canary in set(CANARY.findall(data)):
        print('CANARY', where, canary.decode())


def read(path):
    try:
        # What has no end, or waits for a writer, is not for reading here.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b''
        with open(path, 'rb') as file:
            return file.read(1 << 20)
    except OSError:
        return b''


def attack(name, works):
    try:
        verdict = works()
    except Exception:
        verdict = False
    print(f'{name}: {"open" if verdict else "refused"}')


def connects(family, address):
    s = socket.socket(family)
    s.settimeout(3)
    s.connect(address)
    try:
        seen(s.recv(4096) if family == socket.AF_UNIX else b'', address)
    except OSError:
        pass  # It says nothing by itself; that it let us in is enough.
    return True


# D01, D02: environments and descriptors, one's own and others'.
seen(json.dumps(dict(os.environ)).encode().replace(b'\\"', b'"'), 'own environment')
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/fd/*'):
    seen(read(path), path)
for path in glob.glob('/proc/1/*'):
    seen(read(path), path)
print('ENV', *sorted(os.environ))
print('STDIN', os.path.realpath('/proc/self/fd/0'))
extra = [fd for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2 and os.path.exists(f'/proc/self/fd/{fd}')]
attack('D02 descriptors', lambda: extra)

# D03: what lies in homes and in the data folder.
for path in known['files']:
    seen(read(path), path)
for folder in known['folders']:
    for at, _, names in os.walk(folder):
        for name in names[:2000]:
            seen(read(os.path.join(at, name)), at)
attack('D03 data folder', lambda: os.path.exists(known['data']))
attack('D03 host', lambda: any(map(os.path.exists, ['/etc/shadow', '/etc/gitconfig', '/etc/pip.conf', '/var/lib', '/run/lock'])))
print('AUDIT', read(known['key']).decode())
done = subprocess.run(['git', f'--git-dir={known["vault"]}', 'show', 'HEAD:secret'], capture_output=True)
seen(done.stdout, 'vault')

# D04, D06: sockets of the host, the server's port and loopback services.
attack('D04 agent', lambda: connects(socket.AF_UNIX, known['agent']))
for path in known['sockets']:
    attack('D04 socket', lambda: connects(socket.AF_UNIX, path))
attack('D06 interfaces', lambda: len(socket.if_nameindex()) > 1)
attack('D06 server', lambda: connects(socket.AF_INET, (known['host'], known['port'])))


# D09: the session keyring.
def key():
    keyctl = {'x86_64': 250, 'aarch64': 219}[os.uname().machine]
    found = libc.syscall(keyctl, 10, -3, b'user', b'towpath-canary', 0)
    if found < 0:
        return False
    buffer = ctypes.create_string_buffer(4096)
    length = libc.syscall(keyctl, 11, found, buffer, 4096)
    seen(buffer.raw[:max(length, 0)], 'keyring')
    return True


attack('D09 keyring', key)


# One more of them than none is a flood; taken out again, as the control's keyring is the server's.
def adds_key():
    add, keyctl = {'x86_64': (248, 250), 'aarch64': (217, 219)}[os.uname().machine]
    made = libc.syscall(add, b'user', b'towpath-flood', b'x', 1, -3)
    return made > 0 and libc.syscall(keyctl, 9, made, -3) == 0


attack('D09 add_key', adds_key)

# D11, D15, D17: rights. Where one works, nothing of it stays: the control runs on the machine itself.
def mounts():
    folder = tempfile.mkdtemp(dir='.').encode()
    made = libc.mount(b'none', folder, b'tmpfs', 0, None) == 0
    return made and libc.umount2(folder, 0) == 0


status = open('/proc/self/status').read()
attack('D11 capabilities', lambda: int(status.split('CapEff:')[1].split()[0], 16) != 0)
attack('D11 mount', mounts)
attack('D11 signal', lambda: os.kill(known['pid'], 0) is None)
attack('D15 new privileges', lambda: 'NoNewPrivs:\t0' in status)


def gains(words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    return done.returncode == 0 and b'root' in done.stdout


for words in [['su', 'root', '-c', 'id -un'], ['sh', '-c', 'd=$(mktemp -d -p .) && mount -t tmpfs x $d && umount $d && echo root']]:
    attack(f'D15 {words[0]}', lambda: gains(words))


def writes(folder):
    path = folder + '/.towpath-probe'
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
    return True


for folder in ['/', '/dev', '/usr', '/etc']:
    attack(f'D17 {folder}', lambda: writes(folder))
print('looked at', looked, 'places')
