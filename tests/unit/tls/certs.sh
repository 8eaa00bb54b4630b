#!/bin/sh
# sh certs.sh ca NAME | cert CA NAME SANS [USAGE [DAYS]] | crl CA FILE NAME...: a small authority with the openssl command, in
# the current folder. For the tests.
#
#   ca    NAME.pem, NAME.key
#   cert  NAME.pem, NAME.key: signed by CA; SANS as openssl writes them (DNS:a,IP:1.2.3.4; - for none), USAGE of
#         extendedKeyUsage (serverAuth,clientAuth; - for none); DAYS may be negative: it has ended
#   crl   FILE: what CA says is revoked
set -eu

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

case $1 in
ca)
    key "$2.key"
    openssl req -x509 -new -key "$2.key" -subj "/CN=$2" -days 3650 -out "$2.pem" \
        -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign
    ;;
cert)
    ca=$2 name=$3 sans=$4 usage=${5:-serverAuth,clientAuth} days=${6:-365}
    key "$name.key"
    {
        echo "basicConstraints = CA:false"
        if [ "$sans" != - ]; then echo "subjectAltName = $sans"; fi
        if [ "$usage" != - ]; then echo "extendedKeyUsage = $usage"; fi
    } >"$name.ext"
    openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA "$ca.pem" -CAkey "$ca.key" -set_serial "0x$(openssl rand -hex 8)" \
        -days "$days" -extfile "$name.ext" -out "$name.pem" 2>/dev/null
    rm "$name.ext" "$name.csr"
    ;;
crl)
    ca=$2 out=$3
    shift 3
    : >"$ca.db"
    printf '[ca]\ndefault_ca = this\n[this]\ndatabase = %s.db\ndefault_md = sha256\ndefault_crl_days = 30\n' "$ca" >"$ca.cnf"
    for name in "$@"; do
        openssl ca -config "$ca.cnf" -cert "$ca.pem" -keyfile "$ca.key" -revoke "$name.pem" 2>/dev/null
    done
    openssl ca -config "$ca.cnf" -cert "$ca.pem" -keyfile "$ca.key" -gencrl -out "$out" 2>/dev/null
    rm -f "$ca.db"* "$ca.cnf"
    ;;
*)
    echo "certs.sh: unknown '$1'" >&2
    exit 2
    ;;
esac
