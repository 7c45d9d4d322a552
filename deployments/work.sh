#!/bin/sh
# What the worker of compose.yaml does: deploy the flows, then run them.
set -e
python -m flows.deploy
exec prefect worker start --pool vecferry
