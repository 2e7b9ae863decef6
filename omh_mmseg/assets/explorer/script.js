'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const levels = data.levels, images = data.images, depth = levels.length;
  const $ = id => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (name.startsWith('--')) element.style.setProperty(name, value);
      else element.setAttribute(name, value === true ? '' : value);
    }
    element.append(...children.filter(child => child !== null));
    return element;
  };
  const drawn = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const percent = share => {
    const value = 100 * share;
    return value === 0 ? '0 %' : value < 0.1 ? '<0.1 %' : `${value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
  };
  const number = (value, digits) => value === null || value === undefined ? '–' : value.toFixed(digits);
  const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;
  const key = (level, cluster) => `${level}-${cluster}`;
  const clusterOf = at => levels[at.level].clusters[at.cluster];
  const nameOf = at => clusterOf(at).name ? `${at.cluster} ${clusterOf(at).name}` : `cluster ${at.cluster}`;
  const same = (a, b) => a === b || (a && b && a.level === b.level && a.cluster === b.cluster);

  // Which cluster belongs to which: parents come with the data, children and whole families follow from them.
  const parentOf = at => at.level ? {level: at.level - 1, cluster: clusterOf(at).parent} : null;
  const childrenOf = at => at.level + 1 < depth
    ? data.order[at.level + 1].filter(n => levels[at.level + 1].clusters[n].parent === at.cluster)
        .map(cluster => ({level: at.level + 1, cluster}))
    : [];
  const familyOf = at => {
    const family = new Set();
    for (let up = at; up; up = parentOf(up)) family.add(key(up.level, up.cluster));
    const down = at => { family.add(key(at.level, at.cluster)); childrenOf(at).forEach(down); };
    down(at);
    return family;
  };

  // On a narrow screen the labels would double the way through the images.
  const state = {level: 0, chosen: null, pointed: null, only: false, labels: innerWidth > 640};
  const lit = () => state.pointed || state.chosen;

  // ---- heading ----
  document.title = data.title;
  $('title').textContent = data.title;
  $('facts').textContent = data.facts;
  $('footer').textContent = data.footer;
  $('tree-note').textContent = data.note;
  $('tree-title').textContent = depth > 1 ? 'Tree of clusters' : 'Clusters';

  const dark = () => {
    const set = document.documentElement.dataset.theme;
    return set ? set === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  };
  const showTheme = () => {
    $('theme').textContent = dark() ? 'Light' : 'Dark';
    $('theme').setAttribute('aria-pressed', dark());
    $('theme').setAttribute('aria-label', `dark colours: ${dark() ? 'on' : 'off'}`);
  };
  // A page from disk may have no storage; then the choice lasts as long as the page.
  const stored = value => {
    try {
      if (value) localStorage.setItem('explorer-theme', value);
      return localStorage.getItem('explorer-theme');
    } catch { return null; }
  };
  const useTheme = theme => { if (theme) document.documentElement.dataset.theme = theme; showTheme(); };
  $('theme').addEventListener('click', () => { const theme = dark() ? 'light' : 'dark'; stored(theme); useTheme(theme); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', showTheme);
  useTheme(stored());

  // ---- tree ----
  const nodes = new Map(), links = new Map(), secondLinks = [];
  const buildTree = () => {
    const widest = Math.max(...levels.map(level => level.clusters.length));
    const row = widest <= 30 ? 25 : widest <= 60 ? 22 : 19, height = row - 3;
    const wide = 1000 / (depth + (depth - 1) * 0.2), step = wide * 1.2;
    const place = new Map(), order = [];
    let next = 0;
    const put = at => {
      order.push(at);
      const tops = childrenOf(at).map(put);
      const top = tops.length ? (tops[0] + tops[tops.length - 1]) / 2 : row * next++;
      place.set(key(at.level, at.cluster), top);
      return top;
    };
    data.order[0].forEach(cluster => put({level: 0, cluster}));
    const total = row * next;
    const single = depth === 1;
    const picture = drawn('svg', {viewBox: `0 0 1000 ${total}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'});
    const area = make('div', {
      class: 'nodes', role: 'tree', 'aria-label': single ? 'Clusters' : 'Tree of clusters, coarsest level first',
    }, picture);
    area.style.height = `${total}px`;
    const join = (at, parent, share, further) => {
      const x0 = step * parent.level + wide, x1 = step * at.level, middle = (x0 + x1) / 2;
      const y0 = place.get(key(parent.level, parent.cluster)) + height / 2;
      const y1 = place.get(key(at.level, at.cluster)) + height / 2;
      const line = drawn('path', {
        class: further ? 'link further' : 'link', d: `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`,
      });
      if (!further) {
        line.style.stroke = clusterOf(at).colour;
        const plan = data.plans[parent.level];
        const mass = plan.mass[at.cluster] * share, most = Math.max(...plan.mass);
        line.style.strokeWidth = `${Math.max(0.8, Math.min(8, height / 2.5) * mass / most)}px`;
        links.set(key(at.level, at.cluster), line);
      } else secondLinks.push({ends: [key(at.level, at.cluster), key(parent.level, parent.cluster)], line});
      picture.append(line);
    };
    for (const at of order) {
      const parent = parentOf(at);
      if (!parent) continue;
      data.plans[parent.level].shares[at.cluster].forEach((share, cluster) => {
        if (cluster !== parent.cluster && share >= 0.15) join(at, {level: parent.level, cluster}, share, true);
      });
      join(at, parent, clusterOf(at).parent_share, false);
    }
    for (const at of order) {
      const cluster = clusterOf(at), siblings = parentOf(at) ? childrenOf(parentOf(at)).length : levels[0].clusters.length;
      const most = Math.max(...levels[at.level].clusters.map(other => other.share), 1e-9);
      const told = `level ${at.level + 1}, ${nameOf(at)}, ${percent(cluster.share)} of the pixels`
        + (at.level ? `, in ${nameOf(parentOf(at))}, which takes ${percent(cluster.parent_share)} of its plan mass` : '');
      const node = make('div', {
        class: cluster.share ? 'node' : 'node unused', role: 'treeitem', tabindex: -1, 'aria-level': at.level + 1,
        'aria-setsize': siblings, 'aria-selected': 'false', 'aria-label': told, title: told,
        'data-cluster': key(at.level + 1, at.cluster), '--colour': cluster.colour, '--share': cluster.share / most,
        onclick: () => choose(same(state.chosen, at) ? null : at, true),
        onpointerenter: () => point(at), onpointerleave: () => point(null),
        onfocus: () => point(at), onblur: () => point(null),
        onkeydown: event => walk(event, at),
      }, make('i'), make('b', {}, String(at.cluster)), make('span', {}, cluster.name || ''),
      make('em', {}, cluster.share >= 0.0095 ? `${Math.round(100 * cluster.share)} %` : cluster.share ? '<1 %' : '0 %'));
      node.style.top = `${place.get(key(at.level, at.cluster))}px`;
      node.style.height = `${height}px`;
      node.style.left = `${step * at.level / 10}%`;
      node.style.width = `${wide / 10}%`;
      if (childrenOf(at).length) node.setAttribute('aria-expanded', 'true');
      nodes.set(key(at.level, at.cluster), node);
      area.append(node);
    }
    const heads = make('div', {class: 'heads', 'aria-hidden': 'true'}, ...levels.map(level => {
      const head = make('span', {}, `${level.title}: ${level.clusters.length}`);
      head.style.width = `${wide / 10}%`;
      return head;
    }));
    const tree = $('tree');
    tree.style.minWidth = `${depth > 3 ? depth * 92 : 0}px`;
    tree.append(heads, area);
    nodes.get(key(order[0].level, order[0].cluster)).tabIndex = 0;
  };
  const byHeight = level => data.order[level].map(cluster => ({level, cluster}))
    .sort((a, b) => parseFloat(nodes.get(key(a.level, a.cluster)).style.top)
      - parseFloat(nodes.get(key(b.level, b.cluster)).style.top));
  const walk = (event, at) => {
    const column = byHeight(at.level), here = column.findIndex(other => same(other, at));
    const goals = {
      ArrowDown: column[here + 1], ArrowUp: column[here - 1], Home: column[0], End: column[column.length - 1],
      ArrowLeft: parentOf(at), ArrowRight: childrenOf(at)[0],
    };
    if (event.key === 'Enter' || event.key === ' ') choose(same(state.chosen, at) ? null : at, true);
    else if (!(event.key in goals)) return;
    event.preventDefault();
    if (goals[event.key]) nodes.get(key(goals[event.key].level, goals[event.key].cluster)).focus();
  };

  // ---- images ----
  const folder = index => String(index).padStart(4, '0');
  const maskOf = (index, level) => `masks/${folder(index)}/${levels[level].head}.png`;
  const shadeOf = (index, at) => `masks/${folder(index)}/${levels[at.level].head}_${at.cluster}.png`;
  const shareIn = (image, at) => image.levels[at.level].clusters[at.cluster] || 0;
  // The clusters of a level on a coarse grid, as runs along its rows: what a pointer is over.
  const grids = new Map();
  const under = (index, level, event, box) => {
    const id = key(index, level), image = images[index], [columns, rows] = image.grid;
    if (!grids.has(id)) {
      const cells = new Uint16Array(columns * rows), runs = image.levels[level].runs;
      for (let i = 0, start = 0; i < runs.length; i += 2) { cells.fill(runs[i], start, start += runs[i + 1]); }
      grids.set(id, cells);
    }
    const x = Math.floor((event.clientX - box.left) / box.width * columns);
    const y = Math.floor((event.clientY - box.top) / box.height * rows);
    return {level, cluster: grids.get(id)[Math.min(Math.max(y, 0), rows - 1) * columns + Math.min(Math.max(x, 0), columns - 1)]};
  };
  const stackOf = index => {
    const image = images[index];
    const stack = make('div', {class: 'stack'},
      make('img', {class: 'photo', src: `images/${folder(index)}.jpg`, alt: image.name, loading: 'lazy', decoding: 'async'}),
      ...levels.map((_, level) => make('img', {
        class: 'mask', 'data-level': level + 1, alt: '', loading: 'lazy', decoding: 'async', src: maskOf(index, level),
      })), make('img', {class: 'shade', alt: '', decoding: 'async'}));
    stack.style.aspectRatio = `${image.width} / ${image.height}`;
    return stack;
  };
  // A picture without a source would show a broken frame: the shade is hidden until it has one.
  const showStack = (stack, index, at) => {
    for (const mask of stack.querySelectorAll('.mask')) mask.classList.toggle('on', +mask.dataset.level === state.level + 1);
    const shade = stack.querySelector('.shade'), has = at && shareIn(images[index], at) > 0;
    if (has && shade.getAttribute('src') !== shadeOf(index, at)) shade.src = shadeOf(index, at);
    shade.classList.toggle('on', Boolean(has));
  };
  const cards = images.map((image, index) => {
    const stack = stackOf(index), share = make('span');
    const card = make('figure', {
      class: 'card', tabindex: 0, role: 'group', 'data-image': index,
      'aria-label': `${image.name}; left and right arrow go through its clusters`,
      onkeydown: event => cycle(event, index),
    }, stack);
    if (image.labels) {
      const truth = make('div', {class: 'stack labels'},
        make('img', {class: 'photo', src: `images/${folder(index)}.jpg`, alt: '', loading: 'lazy'}),
        make('img', {class: 'mask on', src: `labels/${folder(index)}.png`, alt: `labels of ${image.name}`, loading: 'lazy'}));
      truth.style.aspectRatio = `${image.width} / ${image.height}`;
      card.append(make('div', {class: 'label-row'}, make('div', {class: 'row-name'}, 'labels'), truth));
    }
    card.append(make('figcaption', {}, make('span', {title: image.name}, image.name), share));
    stack.addEventListener('pointermove', event => {
      if (event.pointerType === 'mouse') point(under(index, state.level, event, stack.getBoundingClientRect()));
    });
    stack.addEventListener('pointerleave', () => point(null));
    stack.addEventListener('click', event => {
      const at = under(index, state.level, event, stack.getBoundingClientRect());
      choose(same(state.chosen, at) ? null : at, false);
    });
    return {card, stack, share, visible: false};
  });
  $('gallery').append(...cards.map(({card}) => card));
  const cycle = (event, index) => {
    if (event.key !== 'ArrowRight' && event.key !== 'ArrowLeft') return;
    event.preventDefault();
    const shares = images[index].levels[state.level].clusters;
    const there = Object.keys(shares).map(Number).sort((a, b) => shares[b] - shares[a]);
    const here = state.chosen && state.chosen.level === state.level ? there.indexOf(state.chosen.cluster) : -1;
    const next = event.key === 'ArrowRight' ? here + 1 : here < 0 ? there.length - 1 : here - 1;
    choose({level: state.level, cluster: there[(next + there.length) % there.length]}, false);
  };
  const showCard = index => {
    const {card, stack, share} = cards[index], at = lit(), image = images[index];
    const there = at ? shareIn(image, at) : 0;
    card.classList.toggle('absent', Boolean(at) && !there);
    share.textContent = at ? percent(there) : '';
    for (const row of card.querySelectorAll('.label-row')) row.hidden = !state.labels;
    showStack(stack, index, at);
  };
  // Only what is on the screen is redrawn while a pointer moves over the tree.
  const watcher = new IntersectionObserver(entries => {
    for (const entry of entries) {
      const index = +entry.target.dataset.image;
      cards[index].visible = entry.isIntersecting;
      if (entry.isIntersecting) showCard(index);
    }
  }, {rootMargin: '200px'});
  cards.forEach(({card}) => watcher.observe(card));

  // ---- details, figures, plans, table ----
  const chip = at => make('button', {
    class: 'chip', type: 'button', '--colour': clusterOf(at).colour, onclick: () => choose(at, true),
    onpointerenter: () => point(at), onpointerleave: () => point(null),
  }, make('span', {class: 'swatch'}), nameOf(at));
  const entry = (term, ...values) => make('div', {}, make('dt', {}, term), make('dd', {}, ...values));
  const showDetail = () => {
    const at = state.chosen, title = $('detail-title'), body = $('detail-body');
    if (!at) {
      title.textContent = `${levels[state.level].title}, ${plural(levels[state.level].clusters.length, 'cluster')}`;
      // Of each cluster the image that shows it best, the largest clusters first.
      const shown = levels[state.level].clusters.map((cluster, number) => ({...cluster, number}))
        .filter(cluster => cluster.best.length).sort((a, b) => b.share - a.share);
      const reel = make('div', {class: 'reel'}, ...shown.map(({best, number, colour}) => {
        const at = {level: state.level, cluster: number}, stack = stackOf(best[0]);
        stack.style.aspectRatio = '1';
        for (const picture of stack.children) picture.style.objectFit = 'cover';
        showStack(stack, best[0], at);
        return make('button', {
          type: 'button', 'aria-label': `choose ${nameOf(at)}`, title: nameOf(at), onclick: () => choose(at, false),
          onpointerenter: () => point(at), onpointerleave: () => point(null),
        }, stack, make('span', {}, make('i', {class: 'swatch', '--colour': colour}), make('b', {}, nameOf(at))));
      }));
      body.replaceChildren(make('p', {class: 'note'}, data.hint), reel);
      return;
    }
    const cluster = clusterOf(at), stats = make('dl', {class: 'stats'});
    title.replaceChildren(make('span', {class: 'swatch', '--colour': cluster.colour}),
      `${levels[at.level].title}, ${nameOf(at)}`);
    stats.append(entry('pixels', percent(cluster.share)), entry('images', `${cluster.images} of ${images.length}`));
    stats.append(entry('margin', number(cluster.margin, 3)));
    if (cluster.label) stats.append(entry('most frequent label', `${cluster.label} (${percent(cluster.purity)})`));
    if (at.level) stats.append(entry('in', chip(parentOf(at)), `${percent(cluster.parent_share)} of its plan mass`));
    const children = childrenOf(at);
    if (at.level + 1 < depth) stats.append(entry('parts', ...(children.length ? children.map(chip) : ['none'])));
    const best = make('div', {class: 'best'}, ...cluster.best.map(index => {
      const stack = stackOf(index);
      stack.addEventListener('click', () => cards[index].card.scrollIntoView({block: 'center'}));
      stack.dataset.image = index;
      stack.title = `${images[index].name}: ${percent(shareIn(images[index], at))}`;
      showStack(stack, index, at);
      return stack;
    }));
    body.replaceChildren(stats, cluster.best.length ? make('p', {class: 'note'}, 'Best examples: large and far from the second best cluster') : make('p', {class: 'note'}, 'No image has this cluster.'), best);
    best.style.marginTop = '5px';
  };
  const showFigures = () => {
    const figures = levels[state.level].figures;
    $('figures-panel').hidden = !figures;
    if (!figures) return;
    $('figures-title').textContent = `Without labels: ${levels[state.level].title}`;
    $('figures').replaceChildren(...data.figures.map(({name, title, text, digits, unit}) => make('div', {class: 'figure'},
      make('strong', {}, number(figures[name], digits), make('small', {}, figures[name] === null ? '' : name === 'in_use' || name === 'effective' ? ` of ${levels[state.level].clusters.length}` : unit)),
      make('b', {}, title), make('span', {}, text))));
  };
  const rowsOfPlans = new Map();
  const buildPlans = () => {
    $('plans-panel').hidden = !data.plans.length;
    data.plans.forEach((plan, level) => {
      const fine = data.order[level + 1], coarse = data.order[level];
      const cell = Math.max(7, Math.min(19, 560 / fine.length)), strip = 8, left = 27, top = 22;
      const width = left + strip + 3 + cell * coarse.length + 2, height = top + strip + 3 + cell * fine.length + 2;
      const x0 = left + strip + 3, y0 = top + strip + 3;
      const picture = drawn('svg', {viewBox: `0 0 ${width} ${height}`, width, height, role: 'img',
        'aria-label': `plan of levels ${level + 1} and ${level + 2}: the parent takes ${percent(plan.parent_takes)} on average`});
      const label = (x, y, text, anchor) => { if (cell >= 9) picture.append(drawn('text', {x, y, 'text-anchor': anchor}, text)); };
      coarse.forEach((cluster, column) => {
        picture.append(drawn('rect', {x: x0 + cell * column, y: top, width: cell, height: strip, fill: levels[level].clusters[cluster].colour}));
        label(x0 + cell * (column + 0.5), top - 4, cluster, 'middle');
      });
      fine.forEach((cluster, line) => {
        const y = y0 + cell * line, at = {level: level + 1, cluster};
        picture.append(drawn('rect', {x: left, y, width: strip, height: cell, fill: clusterOf(at).colour}));
        label(left - 4, y + cell / 2 + 3, cluster, 'end');
        const row = drawn('rect', {class: 'row', x: x0, y, width: cell * coarse.length, height: cell});
        rowsOfPlans.set(key(level + 1, cluster), row);
        const group = drawn('g', {class: 'cell'});
        coarse.forEach((parent, column) => {
          const share = plan.shares[cluster][parent];
          const square = drawn('rect', {x: x0 + cell * column, y, width: cell, height: cell, fill: 'rgb(var(--matrix))', 'fill-opacity': share});
          square.append(drawn('title', {}, `${nameOf(at)} in ${nameOf({level, cluster: parent})}: ${percent(share)}`));
          group.append(square);
        });
        group.append(row);
        // The frame of a row lies above its cells and must not take their titles.
        row.setAttribute('pointer-events', 'none');
        group.addEventListener('pointerenter', () => point(at));
        group.addEventListener('pointerleave', () => point(null));
        group.addEventListener('click', () => choose(at, true));
        picture.append(group);
      });
      picture.append(drawn('rect', {class: 'frame', x: x0, y: y0, width: cell * coarse.length, height: cell * fine.length}));
      $('plans').append(make('figure', {class: 'plan'}, make('figcaption', {},
        make('b', {}, `Level ${level + 2} in level ${level + 1}, λ = ${plan.entropy_weight}`),
        make('span', {}, `The parent takes ${percent(plan.parent_takes)} on average; ${plan.parents_mean.toFixed(2)} effective parents of ${coarse.length}`)), picture));
    });
  };
  const showTable = () => {
    const level = state.level, clusters = levels[level].clusters;
    const labelled = clusters.some(cluster => cluster.label);
    const column = (text, ...names) => make('th', {scope: 'col', class: names.join(' ')}, text);
    const head = make('tr', {}, column(levels[level].title), column('pixels'), column('images', 'wide'), column('margin'),
      ...(level ? [column('in', 'text', 'wide'), column('plan mass', 'wide')] : []),
      ...(labelled ? [column('most frequent label', 'text'), column('purity', 'wide')] : []));
    const order = clusters.map((_, cluster) => cluster).sort((a, b) => clusters[b].share - clusters[a].share);
    const body = order.map(n => {
      const at = {level, cluster: n}, cluster = clusters[n];
      const cellOf = (text, ...names) => make('td', {class: names.join(' ')}, text);
      return make('tr', {
        'data-cluster': key(level + 1, n), onclick: () => choose(same(state.chosen, at) ? null : at, true),
        onpointerenter: () => point(at), onpointerleave: () => point(null),
      }, make('td', {}, make('button', {type: 'button', 'aria-pressed': String(Boolean(same(state.chosen, at))), '--colour': cluster.colour},
        make('span', {class: 'swatch'}), nameOf(at))), cellOf(percent(cluster.share)), cellOf(String(cluster.images), 'wide'), cellOf(number(cluster.margin, 3)),
      ...(level ? [cellOf(nameOf(parentOf(at)), 'text', 'wide'), cellOf(percent(cluster.parent_share), 'wide')] : []),
      ...(labelled ? [cellOf(cluster.label || '–', 'text'), cellOf(cluster.label ? percent(cluster.purity) : '–', 'wide')] : []));
    });
    $('table').replaceChildren(make('caption', {class: 'quiet-live'}, `Clusters of ${levels[level].title}`), make('thead', {}, head), make('tbody', {}, ...body));
  };

  // ---- what is lit ----
  const showLit = () => {
    const at = lit(), family = at ? familyOf(at) : new Set();
    $('tree').classList.toggle('lighting', Boolean(at));
    for (const [id, node] of nodes) {
      node.classList.toggle('kin', family.has(id));
      node.classList.toggle('lit', Boolean(at) && id === key(at.level, at.cluster));
      node.setAttribute('aria-selected', String(Boolean(state.chosen) && id === key(state.chosen.level, state.chosen.cluster)));
      node.classList.toggle('here', +id.split('-')[0] === state.level);
    }
    for (const [id, link] of links) link.classList.toggle('kin', family.has(id));
    for (const {ends, line} of secondLinks) line.classList.toggle('kin', Boolean(at) && ends.includes(key(at.level, at.cluster)));
    for (const [id, row] of rowsOfPlans) row.classList.toggle('lit', Boolean(at) && id === key(at.level, at.cluster));
    for (const row of $('table').querySelectorAll('tbody tr')) {
      row.classList.toggle('lit', Boolean(at) && row.dataset.cluster === key(at.level + 1, at.cluster));
    }
    cards.forEach(({visible}, index) => { if (visible) showCard(index); });
  };
  let waiting = 0;
  const point = at => {
    if (same(state.pointed, at)) return;
    state.pointed = at;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(showLit);
  };
  const show = () => {
    $('level').value = state.level + 1;
    $('level').setAttribute('aria-valuetext', `${levels[state.level].title}, ${plural(levels[state.level].clusters.length, 'cluster')}`);
    $('level-name').textContent = plural(levels[state.level].clusters.length, 'cluster');
    let shown = 0;
    cards.forEach(({card}, index) => {
      card.hidden = state.only && Boolean(state.chosen) && !shareIn(images[index], state.chosen);
      shown += !card.hidden;
      showCard(index);
    });
    $('none').hidden = shown > 0;
    showDetail(); showFigures(); showTable(); showLit();
  };
  const choose = (at, moveLevel) => {
    state.chosen = at;
    if (at && moveLevel) state.level = at.level;
    if (at) {
      for (const node of nodes.values()) node.tabIndex = -1;
      nodes.get(key(at.level, at.cluster)).tabIndex = 0;
      revealNode(nodes.get(key(at.level, at.cluster)));
      $('live').textContent = `level ${at.level + 1}, ${nameOf(at)}: ${percent(clusterOf(at).share)} of the pixels, in ${plural(clusterOf(at).images, 'image')}`;
    } else $('live').textContent = 'no cluster chosen';
    show();
    note();
  };
  const revealNode = node => {
    const box = node.closest('.tree-scroll'), top = node.offsetTop + node.closest('.nodes').offsetTop;
    if (top < box.scrollTop || top + node.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  };
  // The address says what is shown, so that a view can be kept or sent on.
  const note = () => {
    const parts = [`level=${state.level + 1}`];
    if (state.chosen) parts.push(`cluster=${key(state.chosen.level + 1, state.chosen.cluster)}`);
    try { history.replaceState(null, '', `#${parts.join('&')}`); } catch { /* some viewers forbid it */ }
  };
  const read = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const level = +wanted.get('level') - 1, [at, cluster] = (wanted.get('cluster') || '').split('-').map(Number);
    if (levels[level]) state.level = level;
    if (levels[at - 1] && levels[at - 1].clusters[cluster]) state.chosen = {level: at - 1, cluster};
    if (['dark', 'light'].includes(wanted.get('theme'))) useTheme(wanted.get('theme'));
  };

  // ---- controls ----
  $('level').max = depth;
  $('levels').hidden = depth === 1;
  $('ticks').append(...levels.map((_, level) => make('span', {}, String(level + 1))));
  $('level').addEventListener('input', event => { state.level = +event.target.value - 1; show(); note(); });
  $('strength').addEventListener('input', event => document.documentElement.style.setProperty('--strength', event.target.value / 100));
  $('only').addEventListener('change', event => { state.only = event.target.checked; show(); });
  $('labels').addEventListener('change', event => { state.labels = event.target.checked; show(); });
  $('labels').checked = state.labels;
  $('labels-option').hidden = !images.some(image => image.labels);
  if (data.labels.length) {
    $('gallery').before(make('p', {class: 'key', id: 'label-key'}, 'Labels:', ...data.labels.map(({name, colour}) =>
      make('span', {}, make('i', {class: 'swatch', '--colour': colour}), name))));
    $('label-key').style.margin = '0 0 8px';
  }
  document.addEventListener('keydown', event => { if (event.key === 'Escape') { state.pointed = null; choose(null, false); } });
  addEventListener('hashchange', () => { read(); show(); });

  buildTree();
  buildPlans();
  read();
  show();
})();
