"""One look at the probe set → one Record, as a straight path; each step takes what the ones before it named.

    subject.py      model, how it is called, its layers, its score   → Subject, once a run
    explaining.py   maps and predictions of every probe image        → Explained
    reference.py    what drift is measured against; the settled rule → {series: Track}
    forwards.py     what the model says of changed images            → values per image
    measuring.py    every number of the look                         → Measured
    alerts.py       rules over the numbers                           → alerts
    monitor.py      CAMMonitor takes these steps and writes the Record

A *series* is one method on one layer, ``(method, layer)``.
"""
