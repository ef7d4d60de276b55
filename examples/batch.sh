#!/bin/sh
# Detect defocus in a folder of images, export the masks, and list what is mostly blurred.
#
#     sh batch.sh PHOTOS RESULTS
#
# Run it again after a break: what is finished is left alone.
set -eu
photos=$1
results=$2

# Exit status 2: some images could not be read, which the messages named. Go on with the others.
napari-defocus detect "$photos" --out "$results" --resume --confidence || [ $? -eq 2 ]
napari-defocus export "$results" --out "$results/tables" --overwrite

echo "More than half blurred:"
for table in "$results"/tables/*.shares.csv; do
    # The column named "blurred" of the first row below the heading.
    awk -F, -v file="$(basename "$table" .shares.csv)" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "blurred") column = i }
        NR == 2 && $column > 0.5 { printf "%s %.0f %%\n", file, 100 * $column }
    ' "$table"
done
