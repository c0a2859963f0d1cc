"""The tab "SDRRL" in LlamaBoard: prepare, train, measure and compare without leaving LLaMA-Factory's page.

install.py puts it there when `llamafactory-cli webui` starts. What the page knows of a run lies in files under
runs/webui/ (runs.py), so a reload, another browser and a restarted server all see the same.
"""
