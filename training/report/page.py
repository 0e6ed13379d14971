"""The body of the report's page, a Jinja template. It is a string, which every way to install the code takes along."""

STYLE = """\
.banner { background: #b3261e; color: #fff; border-radius: .6rem; padding: .9rem 1.1rem; margin: 1rem 0; }
.banner b { display: block; font-size: 1.15rem; }
.banner.doubt { background: #7a4b00; }
.banner ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1.2rem; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .3rem; }
.cards figcaption { overflow-wrap: anywhere; font-size: .85rem; }
.cards figcaption b { font-weight: 600; color: var(--ink); }
tr.chosen td { font-weight: 600; }
"""
BODY = """\
<h1>{{ title }}</h1>
{% if m.arguments %}
<p class="soft">{{ '{:,}'.format(m.parameters) }} parameters, {{ m.arguments.size }} × {{ m.arguments.size }} pixels,
{% if m.history %}
{{ m.history | length }} epochs of which number {{ m.best_epoch }} was kept, seed {{ m.arguments.seed }}.
{% else %}
an ensemble of finished runs: {{ m.arguments.members | join(', ') }}.
{% endif %}
</p>
{% endif %}
{% if faults %}
<div class="banner" role="alert"><b>Faults were injected into this run on purpose</b>
The run shows what mistakes do to a detector. Do not use it.
<ul>{% for key, value in faults %}<li>{{ key }}{{ ': ' if key }}{{ value }}</li>{% endfor %}</ul></div>
{% endif %}
{% if m.warnings %}
<div class="banner doubt" role="alert"><b>What these numbers say against this detector</b>
<ul>{% for warning in m.warnings %}<li>{{ warning.message[0] | upper }}{{ warning.message[1:] }}.</li>{% endfor %}</ul></div>
{% endif %}

<section class="headline">
<div><b>{{ '%.3f' % v.auc.value }}</b><span>AUC on {{ v.n }} photos<br>95 % between {{ '%.3f' % v.auc.low }} and
{{ '%.3f' % v.auc.high }}</span></div>
<div><b>{{ '%.1f' % (100 * v.accuracy.value) }} %</b><span>of verdicts are right<br>
95 % between {{ '%.1f' % (100 * v.accuracy.low) }} and {{ '%.1f' % (100 * v.accuracy.high) }} %</span></div>
<div><b>{{ '%.3f' % v.ece.value }}</b><span>calibration error<br>{{ '%.3f' % v.ece_raw.value }} before calibration
{% if v.spread %}<br>9 in 10 photos of either class: {{ '%.0f' % (100 * v.spread.low) }} to
{{ '%.0f' % (100 * v.spread.high) }} %{% endif %}</span></div>
</section>

<h2>{{ 'On the validation photos' if m.arguments else 'On these photos' }}</h2>
<p>Each value has a 95 % interval from 1000 stratified bootstrap resamples of the photos. The interval says how much the value
depends on which photos were drawn. It does not say how the detector does on photos from elsewhere.</p>
<div class="wide"><table>
<tr><th>Ranking, on the raw probability</th><th>value (95 % interval)</th></tr>
{% for key, name in ranking %}
<tr><td>{{ name }}</td><td>{{ v[key] | interval }}</td></tr>
{% endfor %}
<tr><th>Verdicts, calibrated probability ≥ {{ '%.4g' % v.threshold }}</th><th></th></tr>
{% for key, name in decisions %}
<tr><td>{{ name }}</td><td>{{ v[key] | interval }}</td></tr>
{% endfor %}
</table></div>
<div class="wide"><table>
<tr><th>Probabilities</th><th>before calibration</th><th>after calibration</th></tr>
{% for key, name in probabilities %}
<tr><td>{{ name }}</td><td>{{ v[key + '_raw'] | interval }}</td><td>{{ v[key] | interval }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Precision, recall and F1 are those of the class Fake; FPR is the share of real photos called fake. TPR at an
FPR is that of the lowest threshold that keeps to this FPR on these photos. ECE is over 15 bins with equally many photos.
Smooth ECE (Błasiok and Nakkiran 2024) needs no bins. Resampling adds noise of its own to both; their intervals are corrected
for that. A detector that gives every photo the same probability can have an ECE of 0. Brier skill shows it: it is 0 for such a
detector, 1 for one that is always sure and right, and below 0 for one that is worse than the first.</p>
{% if v.by_chance %}
<p class="soft">If the calibrated probabilities were exactly right, this many photos would still show an ECE of about
{{ '%.3f' % v.by_chance.ece.mean }} (up to {{ '%.3f' % v.by_chance.ece.high }}) and a smooth ECE of about
{{ '%.3f' % v.by_chance.smooth_ece.mean }} (up to {{ '%.3f' % v.by_chance.smooth_ece.high }}) by chance alone.</p>
{% endif %}
{% for note in v.notes or [] %}
<p class="soft">{{ note }}.</p>
{% endfor %}
{% if m.threshold_choice %}
<h2>The threshold</h2>
<p>Chosen on the {{ m.threshold_choice.n_real }} real photos held out for calibration, to flag at most
{{ '%g' % (100 * m.threshold_choice.target_fpr) }} % of them:
<b>{{ '%.4g' % m.threshold_choice.threshold }}</b>. It finds
{{ '%.1f' % (100 * m.threshold_choice.fakes_found) }} % of the fake photos held out.</p>
{% for note in m.threshold_choice.notes %}
<p class="soft">{{ note }}.</p>
{% endfor %}
{% endif %}
{% if m.band_choice or m.abstention %}
<h2>Uncertain</h2>
{% if m.uncertain %}
<p>Real below <b>{{ '%.4g' % m.uncertain[0] }}</b>, Fake from <b>{{ '%.4g' % m.uncertain[1] }}</b> on, Uncertain in
between.</p>
{% endif %}
{% endif %}
{% if m.band_choice %}
<p>Chosen on the {{ m.band_choice.n_real }} real and {{ m.band_choice.n_fake }} fake photos held out for calibration: of photos
like these, at most {{ '%g' % (100 * m.band_choice.target_fpr) }} % of the real ones are to be called Fake, and at most
{{ '%g' % (100 * m.band_choice.target_fnr) }} % of the fake ones Real. Each of the two holds with a confidence of
{{ '%g' % (100 * m.band_choice.confidence) }} %.</p>
{% for note in m.band_choice.notes %}
<p class="soft">{{ note[0] | upper }}{{ note[1:] }}.</p>
{% endfor %}
{% endif %}
{% if m.abstention %}
<div class="wide"><table>
<tr><th>Answers to {{ m.abstention.n }} {{ 'validation ' if m.arguments else '' }}photos</th><th>share (95 %, Wilson)</th></tr>
{% for key, name in answers.items() %}
<tr><td>{{ name }}</td><td>{% if m.abstention[key] %}{{ m.abstention[key] | interval }}{% else %}–{% endif %}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Families, groups and mistakes follow these answers. All other numbers on this page are those of the threshold
alone, as if every photo had to be answered.</p>
{% endif %}

<div class="plots">
{% if m.abstention %}
<figure>{{ plot('coverage', 'Error against coverage') }}
<figcaption>If only the photos were answered that are farthest from the threshold: the share of wrong answers among them, with
95 % Wilson intervals. The dot is the band, which is chosen for each class by itself.</figcaption></figure>
{% endif %}
<figure>{{ plot('roc', 'ROC curve') }}
<figcaption>ROC curve on the raw probability; the dashed line is chance.</figcaption></figure>
<figure>{{ plot('pr', 'Precision-recall curve') }}
<figcaption>Precision and recall on the raw probability; the dashed line is to call every photo fake.</figcaption></figure>
<figure>{{ plot('confusion', 'Confusion matrix') }}
<figcaption>Verdicts at the threshold {{ '%.4g' % v.threshold }}.</figcaption></figure>
<figure>{{ plot('reliability', 'Reliability diagram') }}
<figcaption>Reliability: the probability that was given, and the share that was
fake, with 95 % Wilson intervals. On the diagonal a probability means what it says.</figcaption></figure>
<figure>{{ plot('scores_raw', 'Histogram of raw probabilities') }}
<figcaption>Raw probabilities of real and of fake photos.</figcaption></figure>
<figure>{{ plot('scores', 'Histogram of calibrated probabilities') }}
<figcaption>The same after calibration, with the threshold.</figcaption></figure>
</div>

{% if m.calibrations %}
<h2>Calibration</h2>
<p><b>{{ m.calibration.method }}</b>{% if m.calibration.why %}: {{ m.calibration.why }}{% endif %}.</p>
{% if m.calibration.candidates %}
<div class="wide"><table>
<tr><th>cross-validated on the calibration photos</th>{% for key, name in probabilities %}<th class="n">{{ name }}</th>
{% endfor %}</tr>
{% for method, measured in m.calibration.candidates.items() %}
<tr{% if method == m.calibration.method %} class="chosen"{% endif %}><td>{{ method }}</td>
{% for key, name in probabilities %}<td class="n">{{ '%.4f' % measured[key] }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
<p>Every method was fitted on the same {{ m.calibration.n or 'held-out' }} photos and measured on the validation photos. Lower
is better, and of Brier skill higher. The row in bold is the method that is served; this table did not choose it.</p>
<div class="wide"><table>
<tr><th>method</th>{% for key, name in probabilities %}<th>{{ name }}</th>{% endfor %}</tr>
{% for method, measured in m.calibrations.items() %}
<tr{% if method == m.calibration.method %} class="chosen"{% endif %}><td>{{ method }}</td>
{% for key, name in probabilities %}<td>{{ measured[key] | interval }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p class="soft">{% for method in m.calibrations %}{{ method }}: {{ methods[method].sentence }}{{ '.' if loop.last else '; ' }}
{% endfor %}</p>
{% if m.cross_fit and m.cross_fit.auc %}
<p class="soft">Cross-fitted in {{ m.cross_fit.folds }} folds: scored by networks that were fitted without
them, the training photos have an AUC of {{ '%.3f' % m.cross_fit.auc }}.</p>
{% endif %}
{% if m.calibration.note %}
<p class="soft">{{ m.calibration.note }}.</p>
{% endif %}
{% endif %}
{% if m.families %}
<h2>By family</h2>
<div class="wide"><table>
<tr><th>family</th><th>class</th><th class="n">photos</th><th>called fake (95 %, Wilson)</th>
<th>AUC against all real photos</th></tr>
{% for row in m.families[:rows] %}
<tr><td>{{ row.family }}</td><td>{{ row.class }}</td><td class="n">{{ row.n }}</td><td>{{ row.flagged | interval }}</td>
<td>{% if row.auc %}{{ row.auc | interval }}{% endif %}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Of a fake family, the share called fake is what is found (TPR); of a real one it is false alarms (FPR).</p>
{% endif %}
{% if m.groups %}
<h2>By group</h2>
<div class="wide"><table>
<tr><th>group</th><th class="n">photos</th><th>fakes found (TPR)</th><th>real ones flagged (FPR)</th></tr>
{% for row in m.groups[:rows] %}
<tr><td>{{ row.group }}</td><td class="n">{{ row.n }}</td>
<td>{% if row.tpr %}{{ row.tpr | interval }}{% else %}–{% endif %}</td>
<td>{% if row.fpr %}{{ row.fpr | interval }}{% else %}–{% endif %}</td></tr>
{% endfor %}
</table></div>
{% if m.groups | length > rows %}
<p class="soft">The {{ rows }} largest of {{ m.groups | length }}; evaluation.json has all.</p>
{% endif %}
{% endif %}
{% if m.robustness %}
<h2>Robustness</h2>
{% for sentence in m.robustness.sentences %}
<p class="warn">{{ sentence }}</p>
{% endfor %}
{% if not m.robustness.sentences %}
<p>None of these changes more than a tenth of the verdicts.</p>
{% endif %}
<p>A sample of {{ m.robustness.photos.real }} real and {{ m.robustness.photos.fake }} fake photos of these was changed at full
size, from mild to severe, and then prepared for the model as usual. Bands are 95 % intervals.</p>
<details><summary>Verdicts changed by each</summary><div class="wide"><table>
<tr><th>change</th><th class="n">level</th><th>verdicts changed (95 %, Wilson)</th><th>accuracy</th><th>AUC</th></tr>
{% for kind in m.robustness.kinds.values() %}
{% for row in kind.levels %}
<tr><td>{{ kind.unit }}</td><td class="n">{{ '%g' % row.level }}</td><td>{{ row.changed | interval }}</td>
<td>{{ row.accuracy | interval }}</td><td>{{ row.auc | interval }}</td></tr>
{% endfor %}
{% endfor %}
</table></div></details>
<div class="plots">
{% for name, kind in m.robustness.kinds.items() %}
<figure>{{ plot('robustness_' ~ name, kind.unit) }}</figure>
{% endfor %}
</div>
{% endif %}
{% if m.pointing_game and m.pointing_game.score %}
<h2>Where it looks</h2>
<p>On pseudo-fakes of {{ m.pointing_game.photos }} of the real photos, the strongest place of the heatmap lies in the
blended region in a share of <b>{{ m.pointing_game.score | interval }}</b> (the pointing game), and of
<b>{{ m.pointing_game.centred | interval }}</b> when the mean map is subtracted. For a random place it is
{{ '%.3f' % m.pointing_game.chance }}.</p>
{% endif %}
{% if mistakes %}
<h2>Worst mistakes</h2>
<p>The wrong verdicts with the highest confidence. In the right picture, orange marks what speaks for fake and blue what speaks
for real.</p>
<div class="cards">
{% for mistake, photo, heatmap in mistakes %}
<figure><div class="pair"><img src="{{ photo }}" alt="photo" width="192" height="192">
<img src="{{ heatmap }}" alt="photo with heatmap" width="192" height="192"></div>
<figcaption><b>{{ 'fake' if mistake.label else 'real' }}, called {{ 'Real' if mistake.label else 'Fake' }} with
{{ '%.1f' % (100 * mistake.confidence) }} %</b>
(raw probability of fake {{ '%.4f' % mistake.raw }})<br>
{{ mistake.name }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}

{% if m.history %}
<h2>Training</h2>
<div class="plots">
<figure>{{ plot('loss', 'Loss by epoch') }}
<figcaption>Training photos are scored with augmentation and dropout, which makes them harder.</figcaption></figure>
<figure>{{ plot('auc', 'AUC by epoch') }}
<figcaption>The epoch that was kept: the best on the tuning photos, or with a cosine schedule the last.</figcaption></figure>
</div>

{% endif %}
<h2>Photos</h2>
{% if m.pseudo_fakes %}
<p>{{ m.pseudo_fakes }}</p>
{% endif %}
{% if m.arguments %}
<p>{{ m.split }}</p>
<div class="wide"><table>
<tr><th>part</th><th class="n">real</th><th class="n">fake</th></tr>
{% for part, says in parts.items() %}
<tr><td>{{ says }}</td><td class="n">{{ m.counts[part].real }}</td><td class="n">{{ m.counts[part].fake }}</td></tr>
{% endfor %}
</table></div>
{% else %}
<p>{{ m.counts.real }} real and {{ m.counts.fake }} fake.</p>
{% endif %}
{% for name, values in told.items() %}
<h3>{{ name }}</h3>
<div class="wide"><table>
{% for key, value in values %}
<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
{% if m.unreadable %}
<details><summary>Files that could not be read and were skipped: {{ m.unreadable | length }}</summary>
<div class="wide"><table>
{% for name, reason in m.unreadable.items() %}
<tr><td><code>{{ name }}</code></td><td>{{ reason }}</td></tr>
{% endfor %}
</table></div>
</details>
{% endif %}
<p class="soft">Fingerprint of the photos: <code>{{ m.fingerprint }}</code></p>

{% if m.arguments %}
<h2>How it was made</h2>
<p>On {{ m.speed.device }}; processes: {{ m.speed.processes }}, threads in each: {{ m.speed.threads }}, precision:
{{ 'float32' if m.speed.precision == 'no' else m.speed.precision }}. Reported scores are all in float32.</p>
{% if m.history %}
<p>{{ '%.0f' % m.speed.images_per_second }} photos a second (median over epochs). Of all the time,
training steps took {{ '%.0f' % time.steps }} %, waiting for photos {{ '%.0f' % time.waiting }} %, and
scoring the tuning photos {{ '%.0f' % time.judging }} %.</p>
<details><summary>Epochs</summary><div class="wide"><table>
<tr><th class="n">epoch</th><th class="n">learning rate</th><th class="n">loss, fitting</th><th class="n">AUC, fitting</th>
{% if 'tune_auc' in m.history[0] %}<th class="n">loss, tuning</th><th class="n">AUC, tuning</th>{% endif %}
<th class="n">seconds</th><th class="n">photos/s</th><th class="n">waiting</th></tr>
{% for row in m.history %}
{% set took = m.speed.epochs[loop.index0] %}
<tr><td class="n">{{ row.epoch }}</td><td class="n">{{ '%.2g' % row.lr }}</td><td class="n">{{ '%.4f' % row.train_loss }}</td>
<td class="n">{{ '%.4f' % row.train_auc }}</td>
{% if 'tune_auc' in row %}
<td class="n">{{ '%.4f' % row.tune_loss }}</td><td class="n">{{ '%.4f' % row.tune_auc }}</td>
{% endif %}
<td class="n">{{ '%.1f' % took.seconds }}</td>
<td class="n">{{ '%.0f' % took.images_per_second }}</td>
<td class="n">{{ '%.0f' % (100 * took.waiting_for_photos) }} %</td></tr>
{% endfor %}
</table></div></details>
{% endif %}
<details><summary>Arguments and library versions</summary><div class="wide"><table>
{% for key, value in m.arguments.items() %}
<tr><td>{{ key }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
{% for key, value in m.libraries.items() %}
<tr><td>{{ key }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</table></div></details>
{% endif %}
"""
