import subprocess, time
from tests.acceptance.test_stalled_consumer import *
for n in list(globals()):
    if n.startswith("test_"): del globals()[n]
def test_probe(far_system, proxy):
    system=far_system
    worker=watched_worker(system)
    proxy.swallow_replies(is_celerys, new_ones_too=True)
    submitted(system,"i",6)
    wait_for(lambda: worker.said("consumer_stalled"), timeout_s=20)
    for _ in range(5):
        time.sleep(2)
        print("=====", subprocess.run(["/tmp/fence/spy/bin/py-spy","dump","--pid",str(worker.pid)],capture_output=True,text=True).stdout.split("MainThread")[1].split("Thread ")[0][:3500])
