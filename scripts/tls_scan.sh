#!/usr/bin/env bash
# Lets testssl.sh, sslyze and h2spec look at the gateway, and real clients talk to it, each as far as it is installed.
#
# usage: scripts/tls_scan.sh path/to/goma [folder for the reports]
# testssl.sh is a Debian package, sslyze one of PyPI (python3 -m sslyze), h2spec a Go program
# (go install github.com/summerwind/h2spec/cmd/h2spec@latest). Traffic on loopback only.
set -euo pipefail

goma=$(realpath "$1")
out=$(realpath -m "${2:-target/tls-scan}")
mkdir -p "$out"
cd "$out"

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
web=$(free) secure=$(free) origin=$(free)

# A private authority and a certificate of it that says where its state can be asked for.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 300 \
    -subj "/CN=Scan authority" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj "/CN=localhost" 2>/dev/null
cat > leaf.ext <<END
subjectAltName = DNS:localhost
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
authorityInfoAccess = OCSP;URI:http://127.0.0.1:9/
END
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 80 -extfile leaf.ext -out leaf.pem 2>/dev/null

cat > origin.py <<'END'
import http.server, sys


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = b"x" * 4096
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_GET

    def log_message(self, *_):
        pass


# The usual five places are fewer than come at once.
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Origin).serve_forever()
END
cat > goma.yml <<END
version: "2"
gateway:
  entryPoints: {web: {address: "127.0.0.1:$web"}, webSecure: {address: "127.0.0.1:$secure"}}
  tls:
    certificates: [{cert: leaf.pem, key: leaf.key}]
    default: {cert: leaf.pem, key: leaf.key}
  routes:
    - {name: all, path: /, target: "http://127.0.0.1:$origin"}
END
python3 origin.py "$origin" 2> origin.log & first=$!
"$goma" server -c goma.yml > goma.log 2>&1 & second=$!
trap 'kill $first $second 2>/dev/null || true' EXIT
for _ in $(seq 100); do curl -sf -o /dev/null "http://127.0.0.1:$web/" && break; sleep 0.1; done

echo "== clients"
for version in --http1.1 --http2; do
    for tls in --tlsv1.2 --tlsv1.3; do
        curl -s --cacert ca.pem $version $tls -o /dev/null -w "curl $version $tls: %{http_code} HTTP/%{http_version}\n" \
            "https://localhost:$secure/"
    done
done
for option in -tls1_2 -tls1_3; do
    printf 'openssl s_client %s: ' $option
    openssl s_client -connect "127.0.0.1:$secure" -servername localhost -CAfile ca.pem $option -reconnect </dev/null 2>/dev/null |
        grep -E '^(New|Reused),|Verify return code' | sort | uniq -c | tr -s ' \n' ' '
    echo
done
for option in -tls1 -tls1_1; do
    openssl s_client -connect "127.0.0.1:$secure" $option -cipher ALL:@SECLEVEL=0 </dev/null > /dev/null 2>&1 &&
        echo "openssl s_client $option: a handshake, which must not be" || echo "openssl s_client $option: refused"
done
if command -v h2load > /dev/null; then
    h2load -n 2000 -c 10 -m 10 "https://localhost:$secure/" | grep -E '^(requests|status codes):'
fi

if command -v testssl > /dev/null; then
    echo "== testssl.sh: findings above LOW"
    rm -f testssl.json
    testssl --quiet --color 0 --add-ca ca.pem --ip 127.0.0.1 --nodns min --jsonfile testssl.json "https://localhost:$secure/" > testssl.txt 2>&1 || true
    python3 - <<'END'
import json

for finding in json.load(open("testssl.json")):
    if finding["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "WARN"):
        print("  %(severity)s %(id)s: %(finding)s" % finding)
END
fi
if python3 -c 'import sslyze' 2> /dev/null; then
    echo "== sslyze, Mozilla's intermediate profile"
    python3 -m sslyze --certinfo_ca_file ca.pem --mozilla_config=intermediate "localhost:$secure" > sslyze.txt 2>&1 || true
    sed -n '/COMPLIANCE/,$p' sslyze.txt
fi
if command -v h2spec > /dev/null; then
    echo "== h2spec: HTTP/2 under TLS, then without"
    h2spec -h localhost -p "$secure" -t -k -o 5 > h2spec-tls.txt 2>&1 || true
    h2spec -h localhost -p "$web" -o 5 > h2spec-clear.txt 2>&1 || true
    grep -h -E 'tests, .* passed|^ *× ' h2spec-tls.txt h2spec-clear.txt || tail -3 h2spec-tls.txt
fi
