"""The report's page, a Jinja template; it is a string so that it travels with the code however that is installed."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { --ink: #1d2126; --soft: #5b6470; --paper: #fff; --line: #dfe3e8; --card: #f6f7f9; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #a3abb5; --paper: #16191d; --line: #343a42; --card: #1f242a; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.soft, figcaption, th { color: var(--soft); }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.headline div { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.headline b { display: block; font-size: 1.7rem; line-height: 1.2; color: var(--accent); }
.headline span { font-size: .88rem; color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: .4rem; }
figcaption { font-size: .9rem; margin-top: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; font-size: .9rem; }
td.n, th.n { text-align: right; padding-right: 1.2rem; }
details { margin-top: 1.5rem; }
summary { cursor: pointer; }
td span { white-space: nowrap; }
code { font-size: .88em; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
{% macro plot(name, alt) %}
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ images[name].dark }}">
<img src="{{ images[name].light }}" alt="{{ alt }}" width="828" height="630">
</picture>
{% endmacro %}
<h1>{{ title }}</h1>
{% if m.history %}
<p class="soft">{{ '{:,}'.format(m.parameters) }} parameters, {{ m.arguments.size }} × {{ m.arguments.size }} pixels,
{{ m.history | length }} epochs of which number {{ m.best_epoch }} was kept, seed {{ m.arguments.seed }}.</p>
{% endif %}

<section class="headline">
<div><b>{{ '%.3f' % v.auc.value }}</b><span>AUC on {{ v.n }} photos<br>95 % between {{ '%.3f' % v.auc.low }} and
{{ '%.3f' % v.auc.high }}</span></div>
<div><b>{{ '%.1f' % (100 * v.accuracy.value) }} %</b><span>of verdicts are right<br>
95 % between {{ '%.1f' % (100 * v.accuracy.low) }} and {{ '%.1f' % (100 * v.accuracy.high) }} %</span></div>
<div><b>{{ '%.3f' % v.ece.value }}</b><span>calibration error<br>{{ '%.3f' % v.ece_raw.value }} before calibration</span></div>
</section>

<h2>{{ 'On the validation photos' if m.history else 'On these photos' }}</h2>
<p>Each value is followed by its 95 % interval from 1000 stratified bootstrap resamples of the photos. The interval
tells how far chance in the choice of these photos could move the value; it does not tell how the detector fares on photos from
elsewhere.</p>
<div class="wide"><table>
<tr><th>Ranking, on the raw probability</th><th>value (95 % interval)</th></tr>
{% for key, name in ranking %}
<tr><td>{{ name }}</td><td>{{ v[key] | interval }}</td></tr>
{% endfor %}
<tr><th>Verdicts, calibrated probability ≥ {{ v.threshold }}</th><th></th></tr>
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
<p class="soft">Precision, recall and F1 are those of the class Fake. ECE is over 15 bins with equally many photos;
resampling makes it larger, so its interval lies a little high.</p>

<div class="plots">
<figure>{{ plot('roc', 'ROC curve') }}
<figcaption>ROC curve on the raw probability; the dashed line is chance.</figcaption></figure>
<figure>{{ plot('confusion', 'Confusion matrix') }}
<figcaption>Verdicts at the threshold {{ v.threshold }}.</figcaption></figure>
<figure>{{ plot('reliability', 'Reliability diagram') }}
<figcaption>Reliability: what was said against what was true, with 95 %
Wilson intervals; on the diagonal a probability means what it says.</figcaption></figure>
</div>

{% if m.history %}
<h2>Training</h2>
<div class="plots">
<figure>{{ plot('loss', 'Loss by epoch') }}
<figcaption>Fitting photos are scored while they are varied and with dropout, which makes them harder.</figcaption></figure>
<figure>{{ plot('auc', 'AUC by epoch') }}
<figcaption>The epoch with the highest AUC on the tuning photos is kept.</figcaption></figure>
</div>

{% endif %}
<h2>Photos</h2>
{% if m.history %}
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

{% if m.history %}
<h2>How it was made</h2>
<p>{{ '%.0f' % m.speed.images_per_second }} photos a second (median over epochs) on {{ m.speed.device }}; processes:
{{ m.speed.processes }}, threads in each: {{ m.speed.threads }}, precision:
{{ 'float32' if m.speed.precision == 'no' else m.speed.precision }}. Reported scores are all in float32.</p>
<details><summary>Epochs</summary><div class="wide"><table>
<tr><th class="n">epoch</th><th class="n">learning rate</th><th class="n">loss, fitting</th><th class="n">loss, tuning</th>
<th class="n">AUC, fitting</th><th class="n">AUC, tuning</th></tr>
{% for row in m.history %}
<tr><td class="n">{{ row.epoch }}</td><td class="n">{{ '%.2g' % row.lr }}</td><td class="n">{{ '%.4f' % row.train_loss }}</td>
<td class="n">{{ '%.4f' % row.tune_loss }}</td><td class="n">{{ '%.4f' % row.train_auc }}</td>
<td class="n">{{ '%.4f' % row.tune_auc }}</td></tr>
{% endfor %}
</table></div></details>
<details><summary>Arguments and library versions</summary><div class="wide"><table>
{% for key, value in m.arguments.items() %}
<tr><td>{{ key }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
{% for key, value in m.libraries.items() %}
<tr><td>{{ key }}</td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</table></div></details>
{% endif %}
</main>
</body>
</html>
"""
