#!/usr/bin/env bash
# with_nginx.sh http|https COMMAND...: runs the command beside an nginx on the loopback that takes GET and PUT, and names
# it in TILEWRIGHT_BENCHMARK_REMOTE (and TILEWRIGHT_CACHE_AUTHORITIES, which trusts its certificate).
set -euo pipefail
protocol=$1
shift
home=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
mkdir "$home/files"
tls=""
if [ "$protocol" = https ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=cache \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$home/key.pem" -out "$home/certificate.pem" 2>/dev/null
  tls="ssl; ssl_certificate $home/certificate.pem; ssl_certificate_key $home/key.pem"
  export TILEWRIGHT_CACHE_AUTHORITIES=$home/certificate.pem
fi
cat >"$home/nginx.conf" <<END
daemon off; master_process off; pid $home/pid; error_log $home/error.log; events {}
http { access_log off; client_max_body_size 64m; client_body_temp_path $home/body; proxy_temp_path $home/proxy;
  fastcgi_temp_path $home/fastcgi; uwsgi_temp_path $home/uwsgi; scgi_temp_path $home/scgi;
  server { listen 127.0.0.1:$port $tls; root $home/files;
    location / { dav_methods PUT; create_full_put_path on; } } }
END
PATH=$PATH:/usr/sbin nginx -e "$home/error.log" -c "$home/nginx.conf" &
server=$!
trap 'kill $server; rm -rf "$home"' EXIT
for _ in $(seq 50); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
export TILEWRIGHT_BENCHMARK_REMOTE=$protocol://127.0.0.1:$port
"$@"
