"""The frame of a report: style and script around ``@TITLE@``, ``@BODY@``, ``@FIGURES@`` and ``@PLOTLY@``."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>@TITLE@</title>
<style>
:root { --ink: #16181d; --soft: #5b6270; --line: #dfe2e7; --pale: #f6f7f9 }
* { box-sizing: border-box }
html { background: #fff }
body { margin: 0 auto; max-width: 1100px; padding: 36px 24px 64px; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
.eyebrow { margin: 0 0 6px; color: var(--soft); font-size: 13px; letter-spacing: .01em }
h1 { margin: 0; font-size: 32px; line-height: 1.2; letter-spacing: -.015em; text-wrap: balance }
.lede { margin: 12px 0 24px; max-width: 76ch; font-size: 17px }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)) }
.tile { padding: 14px 16px; border: 1px solid var(--line); border-radius: 8px; background: var(--pale) }
.tile span, .tile small { display: block; color: var(--soft); font-size: 13px }
.tile b { display: block; margin: 2px 0; font-size: 24px; letter-spacing: -.01em; font-variant-numeric: tabular-nums }
.legend { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 28px 0 0;
  padding: 10px 0; border-bottom: 1px solid var(--line); background: rgba(255, 255, 255, .96); font-size: 14px }
.legend i, th i { display: inline-block; width: 12px; height: 12px; margin-right: 7px; border-radius: 3px;
  vertical-align: -1px }
section { margin-top: 36px }
h2 { margin: 0 0 4px; font-size: 20px; letter-spacing: -.01em }
h3 { margin: 0 0 4px; font-size: 14px }
.note { margin: 0 0 14px; max-width: 86ch; color: var(--soft); overflow-wrap: anywhere }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 8px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
thead th { color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; white-space: normal }
th:first-child { padding-left: 2px; text-align: left }
tbody th { font-weight: 600 }
tbody tr:first-child { background: var(--pale) }
.grid { display: grid; gap: 18px 22px; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)) }
.of-2 { grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)) }
figure { min-width: 0; margin: 0; break-inside: avoid }
figure.wide { grid-column: 1 / -1 }
figcaption { margin: 0 0 2px; font-weight: 600; font-size: 14px; overflow-wrap: anywhere }
.plot { width: 100% }
.split { display: flex; gap: 3px; margin: 4px 0 20px }
.split div { min-width: 0; padding: 8px 12px; background: #e8ebf0 }
.split div:nth-child(2) { background: #d3d9e2 }
.split div:nth-child(3) { background: #2f3947; color: #fff }
.split b, .split span { display: block; font-size: 13px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0 0 18px; font-size: 14px }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
details { margin: 6px 0; font-size: 14px }
summary { cursor: pointer; font-weight: 600 }
.options { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); margin: 10px 0 }
pre { margin: 0; padding: 10px 12px; border-radius: 6px; background: var(--pale); font-size: 12px; overflow-x: auto }
@media (max-width: 640px) { body { padding: 20px 14px 40px } h1 { font-size: 25px }
  dl { grid-template-columns: 1fr } dt { margin-top: 6px } }
@media print { body { max-width: none; padding: 0 } .legend { position: static } section { margin-top: 24px }
  details { display: none }
  .split div, .tile, tbody tr:first-child { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
</style>
</head>
<body>
@BODY@
<script>@PLOTLY@</script>
<script>
const figures = @FIGURES@;
const settings = {responsive: true, displaylogo: false, displayModeBar: false};
Promise.all(figures.map((figure, place) =>
  Plotly.newPlot(`figure-${place + 1}`, figure.data, figure.layout, settings)
)).then(() => { document.documentElement.dataset.drawn = figures.length; });
const resize = () => document.querySelectorAll(".plot").forEach(plot => Plotly.Plots.resize(plot));
window.addEventListener("beforeprint", resize);
window.addEventListener("afterprint", resize);
</script>
</body>
</html>
"""
