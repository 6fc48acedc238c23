"""A local web page to work in: look through a run's clusters, name, merge and split them, move images, search.

library     clusters, orders, neighbours and previews, as queries on a run's arrays
pictures    rows of the run as pictures: sheets of thumbnails, stored pixels, original files
words       decisions as sentences, for whoever did not make them
guard       which requests are answered at all
keeping     clusters.csv, kept up with decisions
server      the requests, and the loop that answers them
page/       what runs in the browser: plain HTML, CSS and JavaScript, shipped as they are
"""
