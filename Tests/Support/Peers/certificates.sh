#!/usr/bin/env bash
# Makes the certificates that the TLS tests want, good and bad, in a directory: certificates.sh DIRECTORY
set -euo pipefail
cd "$1"
newkey=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)

authority() { # NAME
    openssl req -x509 "${newkey[@]}" -nodes -days 30 -subj "/CN=$1" -addext basicConstraints=critical,CA:true \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

# NAME SUBJECT-ALT-NAMES EXTENDED-KEY-USAGE AUTHORITY START END
certificate() {
    openssl req "${newkey[@]}" -nodes -subj "/CN=$1/O=Apus tests" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf '%s\n' "basicConstraints=critical,CA:false" "extendedKeyUsage=$3" "subjectAltName=$2" >"$1.ext"
    cat >"$1.cnf" <<CNF
[ca]
default_ca=own
[own]
database=$1.db
serial=$1.serial
new_certs_dir=.
default_md=sha256
policy=any
[any]
commonName=supplied
organizationName=optional
CNF
    : >"$1.db"
    openssl rand -hex 8 >"$1.serial"
    openssl ca -batch -config "$1.cnf" -in "$1.csr" -cert "$4.pem" -keyfile "$4.key" -startdate "$5" -enddate "$6" -extfile "$1.ext" \
        -out "$1.pem" -notext 2>/dev/null
}

past=20200101000000Z then=20200201000000Z
begin=$(date -u -d yesterday +%Y%m%d%H%M%SZ) end=$(date -u -d '30 days' +%Y%m%d%H%M%SZ)
authority authority
authority stranger
certificate localhost DNS:localhost,IP:127.0.0.1 serverAuth authority "$begin" "$end"
certificate other DNS:other.test,DNS:*.wild.test serverAuth authority "$begin" "$end"
certificate expired DNS:localhost,IP:127.0.0.1 serverAuth authority "$past" "$then"
certificate elsewhere DNS:elsewhere.test serverAuth authority "$begin" "$end"
certificate untrusted DNS:localhost,IP:127.0.0.1 serverAuth stranger "$begin" "$end"
certificate client email:client@example.test clientAuth authority "$begin" "$end"
certificate foreign email:foreign@example.test clientAuth stranger "$begin" "$end"
openssl req -x509 "${newkey[@]}" -nodes -days 30 -subj /CN=selfsigned -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout selfsigned.key -out selfsigned.pem 2>/dev/null
openssl ec -in localhost.key -aes256 -passout pass:sesame -out encrypted.key 2>/dev/null
openssl ocsp -issuer authority.pem -cert localhost.pem -reqout localhost.question 2>/dev/null
openssl ocsp -index localhost.db -CA authority.pem -rsigner authority.pem -rkey authority.key -reqin localhost.question \
    -respout localhost.ocsp -ndays 7 >/dev/null 2>&1
openssl x509 -in localhost.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64 >localhost.spki
echo sesame >passphrase
echo "not a certificate" >nonsense.pem
head -c 300 localhost.pem >half.pem
openssl req -x509 -newkey rsa:1024 -nodes -days 30 -subj /CN=weak -keyout weak.key -out weak.pem 2>/dev/null
mkfifo pipe.pem
: >empty
