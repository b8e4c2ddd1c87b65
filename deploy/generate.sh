#!/bin/sh
# Writes what of deploy/ follows from code, here or below the folder that is given: the dashboard; topics and rights of the
# example for Strimzi and Terraform. Needs kantoku-kafka and python on the PATH.
set -eu
deploy=$(cd "$(dirname "$0")" && pwd)
out=${1:-$deploy}
python "$deploy/grafana/dashboard.py" > "$out/grafana/kantoku.json"
cd "$deploy/../examples"
app=word_count:kan

strimzi=$out/kubernetes/overlays/words
kantoku-kafka topics plan "$app" --emit strimzi > "$strimzi/topics.yaml"
kantoku-kafka acls plan "$app" --no-timers --emit strimzi --role executor --role scheduler --role spawner \
  --principal executor=User:CN=words-executor --principal scheduler=User:CN=words-scheduler \
  --principal spawner=User:CN=words-spawner > "$strimzi/users.yaml"

terraform=$out/terraform/words
kantoku-kafka topics plan "$app" --emit terraform > "$terraform/topics.tf"
kantoku-kafka acls plan "$app" --no-timers --emit terraform --role executor --role scheduler --role spawner \
  --principal executor=User:words-executor --principal scheduler=User:words-scheduler \
  --principal spawner=User:words-spawner > "$terraform/acls.tf"
