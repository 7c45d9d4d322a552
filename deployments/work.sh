#!/bin/sh
# What the worker of compose.yaml does: deploy the flows, then run them.
set -e
prefect --no-prompt work-pool create vecferry --type process --overwrite
prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all
prefect automation inspect "Crash zombie runs" >/dev/null 2>&1 ||
    prefect automation create --from-file deployments/automations/crash-zombie-runs.yaml
exec prefect worker start --pool vecferry
