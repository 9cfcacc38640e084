"""One look at the probe set → one Record, as a straight path; each step takes what the ones before it named.

    monitor.py      CAMMonitor: takes the steps below, and writes the Record
    subject.py      the model, how it is called, its layers, its score       → Subject, once a run
    explaining.py   the maps and predictions of every probe image            → Explained
    reference.py    what drift is measured against (settled.py: when)        → a Track for each series
    exchanging.py   what the prediction follows when two images exchange a part → Exchanged
    forwards.py     what the model says of changed images                    → values per image
    measuring.py    every number of the look                                 → Measured
    alerts.py       rules over the numbers and exchanges                     → alerts, and what every rule found

Below them: ``options.py`` what can be chosen, ``target.py`` which score is explained (``detection.py``: of a detector),
``batches.py`` how many images at once, ``tracking.py`` what one look leaves to the next, ``noise_floor.py``, ``baselines.py``
another run or a checkpoint as the reference, ``neutral.py`` what monitors see before there is a value, ``manifest.py``,
``evidence.py`` what rules see, ``rules.py`` the list of them (``exchange_rules.py``, ``map_rules.py``), ``memory.py`` what a run
remembers.

A *series* is one method on one layer, ``(method, layer)``. A further step is one function with one named result, called in
:meth:`CAMMonitor.look`.
"""
